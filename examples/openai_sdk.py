r"""The OpenAI SDK through the gateway. Nothing but the base URL changes.

Run it:

    pip install openai
    luthien-asgi demo --serve          # in another terminal
    python examples/openai_sdk.py

The same by hand:

    curl -N localhost:4000/v1/chat/completions -H 'content-type: application/json' \
      -d '{"model": "gpt-demo", "stream": true, "messages": [{"role": "user", "content": "Please tidy up."}]}'

The trap: the base URL ends in `/v1`; Anthropic's does not. And the key is one of the gateway's, never the provider's.
"""

from __future__ import annotations

import os

from openai import OpenAI


def main() -> None:
    url = os.environ.get("LUTHIEN_URL", "http://127.0.0.1:4000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("LUTHIEN_CLIENT_KEY", "demo"))
    with client.chat.completions.stream(
        model=os.environ.get("LUTHIEN_MODEL", "gpt-demo"),
        messages=[{"role": "user", "content": "Please tidy up."}],
        stream_options={"include_usage": True},
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    print(f"\nfinish: {answer.choices[0].finish_reason}, tools: {[call.function.name for call in calls]}")


if __name__ == "__main__":
    main()
