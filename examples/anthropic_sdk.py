r"""The Anthropic SDK through the gateway. Nothing but the base URL changes.

Run it:

    pip install anthropic
    luthien-asgi demo --serve          # in another terminal
    python examples/anthropic_sdk.py

The same by hand:

    curl -N localhost:4000/v1/messages -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \
      -d '{"model": "claude-demo", "max_tokens": 99, "stream": true, "messages": [{"role": "user", "content": "Tidy up."}]}'

The trap: the base URL has no `/v1`; OpenAI's has. And the key is one of the gateway's, never the provider's.
"""

from __future__ import annotations

import os

from anthropic import Anthropic


def main() -> None:
    url = os.environ.get("LUTHIEN_URL", "http://127.0.0.1:4000")
    client = Anthropic(base_url=url, api_key=os.environ.get("LUTHIEN_CLIENT_KEY", "demo"))
    with client.messages.stream(
        model=os.environ.get("LUTHIEN_MODEL", "claude-demo"),
        max_tokens=1024,
        messages=[{"role": "user", "content": "Please tidy up."}],
    ) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
        answer = stream.get_final_message()
    names = [block.name for block in answer.content if block.type == "tool_use"]
    print(f"\nstop: {answer.stop_reason}, tools: {names}")


if __name__ == "__main__":
    main()
