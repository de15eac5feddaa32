r"""What policies in shadow would have done, from a record: before a rule is enforced, see whom it would have hit.

Run it: after some traffic through `shadow_rollout.yaml`,

    curl -N localhost:4000/v1/chat/completions -H "authorization: Bearer $LUTHIEN_CLIENT_KEY" \
      -H 'content-type: application/json' -d '{"model": "fast", "stream": true, "messages": [{"role": "user", "content": "Hi."}]}'
    python examples/shadow_rollout.py transactions.jsonl

You see a line for each transaction that would have gone otherwise, and their share:

    DenyTools would deny the call of bash: the arguments match the pattern of '*' (me, 5d8b…)
    1 of 20 transactions would have gone otherwise.

In Python such a policy is `Governed(DenyTools(...), mode="shadow")`, in a `Chain` behind the one in charge:

    LuthienMiddleware(app, backend=..., policy=Chain([today, Governed(tomorrow, mode="shadow")]))

The trap: a verdict is what a policy said, an action what was done. In shadow the action is always `allow`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from luthien_asgi import read_transactions


def would_have(transaction: dict[str, Any]) -> Iterator[str]:
    """Yield what policies in shadow said that is not "allow"."""
    begin, end = transaction["begin"], transaction["end"]
    for verdict in end["verdicts"]:
        if verdict["mode"] == "shadow" and verdict["verdict"] != "allow":
            what = f"the call of {verdict['tool']}" if verdict["tool"] else f"a {verdict['kind']}"
            who = f"{begin['client']}, {transaction['id']}"
            yield f"{verdict['policy']} would {verdict['verdict']} {what}: {verdict['reason']} ({who})"


def main(path: str) -> None:
    """Print what would have been, and how much of it."""
    ended = [transaction for transaction in read_transactions(path) if transaction["end"] and transaction["begin"]]
    found = [[*would_have(transaction)] for transaction in ended]
    for lines in found:
        print("\n".join(lines), end="\n" if lines else "")
    print(f"{sum(map(bool, found))} of {len(ended)} transactions would have gone otherwise.")


if __name__ == "__main__":
    main(sys.argv[1])
