"""What we know of LiteLLM without importing it: names of providers and of parameters (LiteLLM 1.106, `types/router.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

__all__ = [
    "BARE_MODELS",
    "BRIDGED_PROVIDERS",
    "CLAUDE_HOSTS",
    "CUSTOM_TOOL_PROVIDERS",
    "GEMINI_HOSTS",
    "HANDLER_PROVIDERS",
    "KEYLESS_PROVIDERS",
    "OPENAI_ITERATORS",
    "OTHER_WIRES",
    "OWN_BODY",
    "PARAMETERS",
    "PARAMETER_PREFIXES",
    "ROUTER_ONLY",
    "TOP_K_PROVIDERS",
    "WITHOUT_TOKENIZER",
]

KEYLESS_PROVIDERS: Final = frozenset(
    {"docker_model_runner", "hosted_vllm", "llamafile", "lm_studio", "ollama", "ollama_chat", "oobabooga", "triton", "vllm"}
)
"""Servers that one runs oneself: they are called without a credential unless one is configured."""

HANDLER_PROVIDERS: Final = frozenset(
    {
        "anthropic",
        "azure_ai",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "ollama",
        "ollama_chat",
        "openrouter",
        "together_ai",
        "xai",
    }
)
"""Providers that LiteLLM calls through its own `AsyncHTTPHandler`, so that they accept one as `client`."""

WITHOUT_TOKENIZER: Final = frozenset({"azure", "openai"})
"""Providers that LiteLLM calls without its tokenizer's table in hand (`main.py`: the others are given `encoding`)."""

BARE_MODELS: Final[Mapping[str, str]] = MappingProxyType(
    {"gpt-": "openai", "chatgpt-": "openai", "o1": "openai", "o3": "openai", "o4": "openai", "claude-": "anthropic"}
)
"""Provider by the beginning of a model name that has none in front."""

ROUTER_ONLY: Final = frozenset(
    {"cooldown_time", "default_api_key_rpm_limit", "max_budget", "budget_duration", "order", "rpm", "tags", "tpm", "weight"}
)
"""Parameters that only a `litellm.Router` acts on."""

PARAMETER_PREFIXES: Final = (
    "aws_",
    "azure_",
    "bedrock_",
    "databricks_",
    "gcs_",
    "input_cost_",
    "litellm_",
    "oci_",
    "output_cost_",
    "s3_",
    "sagemaker_",
    "sap_",
    "snowflake_",
    "vertex_",
    "watsonx_",
)

PARAMETERS: Final = (
    frozenset(
        {
            "additional_drop_params",
            "allowed_openai_params",
            "api_base",
            "api_key",
            "api_version",
            "base_model",
            "base_url",
            "cache_control_injection_points",
            "client_id",
            "client_secret",
            "custom_llm_provider",
            "drop_params",
            "extra_body",
            "extra_headers",
            "frequency_penalty",
            "headers",
            "logit_bias",
            "max_completion_tokens",
            "max_parallel_requests",
            "max_retries",
            "max_tokens",
            "merge_reasoning_content_in_choices",
            "metadata",
            "mock_response",
            "mode",
            "model",
            "num_retries",
            "organization",
            "parallel_tool_calls",
            "presence_penalty",
            "project",
            "reasoning_effort",
            "region_name",
            "response_format",
            "safety_identifier",
            "seed",
            "service_tier",
            "space_id",
            "ssl_verify",
            "stop",
            "stream_timeout",
            "temperature",
            "tenant_id",
            "thinking",
            "timeout",
            "top_k",
            "top_p",
            "use_in_pass_through",
            "user",
            "verbosity",
        }
    )
    | ROUTER_ONLY
)

OPENAI_ITERATORS: Final = frozenset(
    {
        "AsyncStream",
        "OpenAIChatCompletionResponseIterator",
        "CometAPIChatCompletionStreamingHandler",
        "OVHCloudChatCompletionStreamingHandler",
        "OpenAIChatCompletionStreamingHandler",
        "OpenRouterChatCompletionStreamingHandler",
    }
)
"""The classes (or bases) with which LiteLLM reads an OpenAI-style stream: whose response they hold, our decoder reads."""

TOP_K_PROVIDERS: Final = frozenset(
    {"bedrock", "fireworks_ai", "gemini", "hosted_vllm", "lm_studio", "llamafile", "ollama", "ollama_chat", "openrouter"}
    | {"together_ai", "vertex_ai", "vertex_ai_beta"}
)
"""Providers that take `top_k` beside OpenAI's parameters."""

CLAUDE_HOSTS: Final = frozenset({"bedrock", "vertex_ai", "vertex_ai_beta"})
"""Providers whose Claude models take thinking blocks and cache marks through LiteLLM."""

GEMINI_HOSTS: Final = frozenset({"gemini", "vertex_ai", "vertex_ai_beta"})
"""Providers of Gemini, which wants its thought signatures back."""

BRIDGED_PROVIDERS: Final = frozenset({"azure", "openai"})
"""Providers whose Responses API is called, by LiteLLM's bridge, for models that are offered there only."""

CUSTOM_TOOL_PROVIDERS: Final = frozenset({"azure", "openai"})
"""Providers whose models take custom tools, whose input is free text."""

OTHER_WIRES: Final = frozenset(
    {
        "a2a",
        "aleph_alpha",
        "anthropic",
        "anthropic_text",
        "bedrock",
        "cloudflare",
        "cohere",
        "cohere_chat",
        "gemini",
        "nlp_cloud",
        "oci",
        "ollama",
        "ollama_chat",
        "palm",
        "petals",
        "predibase",
        "replicate",
        "sagemaker",
        "snowflake",
        "triton",
        "vertex_ai",
        "vertex_ai_beta",
        "watsonx",
    }
)
"""Providers whose API is not OpenAI's: a parameter that LiteLLM cannot map for them is refused, not passed on as it is."""


WayName = Literal["client", "handler", "extra_body"]


class OwnBody(NamedTuple):
    """How a request body of ours gets past LiteLLM's mapping to a provider of OpenAI's wire, and why it should."""

    way: WayName
    """In the SDK's client that LiteLLM is given, in LiteLLM's handler, or in `extra_body`."""
    why: str


_OWN_SERVER: Final = "a server that one runs oneself, made to be called as OpenAI is"

OWN_BODY: Final[Mapping[str, OwnBody]] = MappingProxyType(
    {
        "openai": OwnBody("client", "OpenAI, and the servers that are configured under its name"),
        "azure": OwnBody("extra_body", "OpenAI's models; in the client where a key and an endpoint are all there is"),
        "hosted_vllm": OwnBody("handler", "vLLM takes OpenAI's bodies, and its own fields beside them"),
        "litellm_proxy": OwnBody("client", "a gateway for the same bodies, which maps them itself"),
        "llamafile": OwnBody("client", _OWN_SERVER),
        "lm_studio": OwnBody("client", _OWN_SERVER),
    }
)
"""Providers that get an OpenAI client's body as it is.

All others of OpenAI's wire take a part of it or have other names for it, which is what LiteLLM's mapping is for: Mistral wants
`max_tokens` for `max_completion_tokens` and `any` for a required tool, DeepSeek texts for lists of parts, Groq a tool for a
schema, xAI nothing of what its reasoning models refuse; Azure AI, Fireworks, OpenRouter, Perplexity and Together serve models of
many makers with their rules.
"""
