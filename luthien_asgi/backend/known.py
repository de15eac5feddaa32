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
    "KEY_SETTINGS",
    "KEY_VARIABLES",
    "OPENAI_ITERATORS",
    "OTHER_WIRES",
    "OWN_BODY",
    "PARAMETERS",
    "PARAMETER_PREFIXES",
    "PLAIN_CALL_SETTINGS",
    "REMEMBERED",
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

REMEMBERED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "anthropic": (
            "ANTHROPIC_API_BASE",
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "LITELLM_ANTHROPIC_DISABLE_URL_SUFFIX",
        ),
        "azure": (),
        "hosted_vllm": ("HOSTED_VLLM_API_BASE", "HOSTED_VLLM_API_KEY"),
        "litellm_proxy": ("LITELLM_PROXY_API_BASE", "LITELLM_PROXY_API_KEY"),
        "llamafile": ("LLAMAFILE_API_BASE", "LLAMAFILE_API_KEY"),
        "lm_studio": ("LM_STUDIO_API_BASE", "LM_STUDIO_API_KEY"),
        "openai": ("OPENAI_API_KEY",),
    }
)
"""Providers whose credentials are texts that somebody configured, so that what LiteLLM makes of a call is made of its arguments,
its settings and these variables. (Azure's are among the arguments, where one of our clients calls it.)

Not here: whoever gets a token for each call or each hour, as Vertex, Bedrock, Azure with Entra ID and Copilot do.
"""

KEY_VARIABLES: Final = (
    "AIOHTTP_TRUST_ENV",
    "DISABLE_AIOHTTP_TRUST_ENV",
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER",
    "LITELLM_RUST",
    "OPENAI_API_BASE",
    "OPENAI_BASE_URL",
    "OPENAI_ORGANIZATION",
    "USE_LITELLM_PROXY",
)
"""Variables that LiteLLM reads for each call, whichever provider it is for."""

KEY_SETTINGS: Final = (
    "anthropic_key",
    "api_base",
    "api_key",
    "api_version",
    "azure_key",
    "disable_aiohttp_trust_env",
    "headers",
    "openai_key",
    "organization",
    "request_timeout",
    "request_timeout_explicitly_set",
)
"""Settings of LiteLLM's module that become a part of a request."""

PLAIN_CALL_SETTINGS: Final = (
    "_async_failure_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_key_management_system",
    "add_function_to_prompt",
    "cache",
    "callbacks",
    "credential_list",
    "custom_prompt_dict",
    "custom_provider_map",
    "drop_params",
    "enable_anthropic_prompt_caching",
    "enable_preview_features",
    "failure_callback",
    "input_callback",
    "log_raw_request_response",
    "max_budget",
    "model_alias_map",
    "model_fallbacks",
    "modify_params",
    "num_retries_per_request",
    "openai_system_messages_first",
    "post_call_rules",
    "pre_call_rules",
    "proxy_auth",
    "request_correlation_in_logs",
    "route_all_chat_openai_to_responses",
    "secret_manager_client",
    "service_callback",
    "set_verbose",
    "success_callback",
    "use_litellm_proxy",
    "vector_store_registry",
)
"""Settings of LiteLLM's module with which a call does more than to send a request, or may send another one."""
