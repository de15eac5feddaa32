#!/bin/sh
# Claude Code through the gateway: every tool call it is told to make has passed the policy.
#
# Run it:
#
#     luthien-asgi serve --config examples/luthien.yaml     # in another terminal
#     LUTHIEN_CLIENT_KEY=... examples/claude_code.sh
#
# See what it is told:
#
#     curl -N localhost:4000/v1/messages -H "x-api-key: $LUTHIEN_CLIENT_KEY" -H 'content-type: application/json' \
#       -d '{"model": "claude-sonnet-5", "max_tokens": 99, "stream": true, "messages": [{"role": "user", "content": "Hi."}]}'
#
# The trap: ANTHROPIC_API_KEY, where it is set, is sent beside ANTHROPIC_AUTH_TOKEN, and the gateway refuses two credentials.
# The base URL has no /v1.
set -eu
unset ANTHROPIC_API_KEY
export ANTHROPIC_BASE_URL="${LUTHIEN_URL:-http://127.0.0.1:4000}"
export ANTHROPIC_AUTH_TOKEN="${LUTHIEN_CLIENT_KEY:-demo}"
exec claude "$@"
