"""Say hello to a ChatOpenAI, in the way that the argument names."""

import asyncio
import sys

from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="gpt-4.1-mini")
match sys.argv[1]:
    case "invoke":
        print(model.invoke("hello").text)
    case "stream":
        print("".join(chunk.text for chunk in model.stream("hello")))
    case "stream_usage":
        print("".join(chunk.text for chunk in model.stream("hello", stream_usage=True)))
    case "ainvoke":
        print(asyncio.run(model.ainvoke("hello")).text)
    case way:
        sys.exit(f"unknown way {way!r}")
