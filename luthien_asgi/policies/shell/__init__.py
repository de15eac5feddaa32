"""What a shell script would run, as far as reading it can tell; for `luthien_asgi.policies.guard_shell`."""
