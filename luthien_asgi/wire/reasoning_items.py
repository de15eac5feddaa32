"""`encrypted_content` of reasoning items, by the name that the wires know it by: see `luthien_asgi.reasoning_items`."""

from luthien_asgi.reasoning_items import CarriedThinking, decode, encode

__all__ = ["CarriedThinking", "decode", "encode"]
