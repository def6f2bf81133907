"""Drives the router with LangChain and LiteLLM as people do; prints one JSON object with what they got.

It runs in an environment of its own (``scripts/client_libraries.sh``): what these two need does not go together with
the newest SDKs of the other tests.
"""

import json
import sys
from typing import Any

import litellm
from langchain_openai import ChatOpenAI


def main(base: str, model: str, other: str) -> dict[str, Any]:
    """Each asks for one model in a stream and for the other one as a whole, so that each time is a switch."""
    question = "Who are you?"
    chat = ChatOpenAI(model=model, base_url=base, api_key="sk-local", stream_usage=True)
    parts = list(chat.stream(question))
    elsewhere = ChatOpenAI(model=other, base_url=base, api_key="sk-local")
    asked = {"api_base": base, "api_key": "sk-local", "messages": [{"role": "user", "content": question}]}
    streamed = litellm.completion(model=f"openai/{model}", stream=True, **asked)
    return {
        "langchain": "".join(str(part.content) for part in parts),
        "langchain_tokens": max((part.usage_metadata or {}).get("output_tokens", 0) for part in parts),
        "langchain_whole": elsewhere.invoke(question).content,
        "litellm": "".join(part.choices[0].delta.content or "" for part in streamed),
        "litellm_whole": litellm.completion(model=f"openai/{other}", **asked).choices[0].message.content,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
