"""Call LiteLLM, in the way that the argument names."""

import asyncio
import sys

import litellm

request = {"model": "openai/gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}]}
match sys.argv[1]:
    case "completion":
        print(litellm.completion(**request).choices[0].message.content)
    case "acompletion":
        print(asyncio.run(litellm.acompletion(**request)).choices[0].message.content)
    case "stream":
        chunks = litellm.completion(**request, stream=True)
        print("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    case "stream_usage":
        options = {"include_usage": True}
        chunks = litellm.completion(**request, stream=True, stream_options=options)
        # The chunk with the usage, which the program asks for, has no choices.
        print("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    case "embedding":
        response = litellm.embedding(model="openai/text-embedding-3-small", input=["hello"])
        print([item["embedding"] for item in response.data])
    case way:
        sys.exit(f"unknown way {way!r}")
