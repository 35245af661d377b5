"""Say hello through Portkey's own SDK, in the way that the argument names."""

import asyncio
import os
import sys

from portkey_ai import AsyncPortkey, Portkey

options = {"api_key": "pk-standin", "provider": "openai", "base_url": os.environ["OPENAI_BASE_URL"]}
request = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}]}
match sys.argv[1]:
    case "chat":
        answer = Portkey(**options).chat.completions.create(**request)
        print(answer.choices[0].message.content)
    case "achat":
        answer = asyncio.run(AsyncPortkey(**options).chat.completions.create(**request))
        print(answer.choices[0].message.content)
    case "stream":
        chunks = Portkey(**options).chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
        print("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    case way:
        sys.exit(f"unknown way {way!r}")
