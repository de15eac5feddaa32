"""Names that steer the gateway's own calls and never come from a client: LiteLLM's keyword arguments and what hosts add to them.

They would be refused anyway, as every name that the tables do not know; the list is there so that the refusal can say why.
"""

from __future__ import annotations

from typing import Final

__all__ = ["is_control_name"]

_NAMES: Final = frozenset(
    """
    acompletion additional_drop_params allowed_openai_params api_base api_key api_type api_version async_call
    azure_ad_token azure_ad_token_provider base_model base_url bos_token cache caching callbacks client client_id client_secret
    complete_response content_policy_fallbacks context_window_fallback_dict context_window_fallbacks cooldown_time
    custom_llm_provider custom_prompt_dict default_fallbacks deployment_id disable_fallbacks drop_params eos_token
    extra_body extra_headers extra_query failure_callback fallbacks final_prompt_value force_timeout guardrails headers
    hf_model_name hooks initial_prompt_value input_callback input_cost_per_token logger_fn max_parallel_requests max_retries
    mock_delay mock_response mock_timeout mock_tool_calls model_alias_map model_config model_file_id_mapping model_info model_list
    models no-log no_log num_retries organization output_cost_per_token preset_cache_key prompt_id prompt_variables provider
    provider_specific_header proxy_server_request region_name request_timeout retry_policy retry_strategy roles route router
    rpm secret_fields shared_session specific_deployment ssl_verify stream_timeout success_callback tags tenant_id
    text_completion timeout tpm ttl user_api_key verbose
    """.split()  # noqa: SIM905 - a list of names to be read
)
_PREFIXES: Final = ("litellm", "aws_", "azure_", "vertex_", "watsonx_", "oci_", "sagemaker_", "user_api_key", "user_continue_")


def is_control_name(name: str) -> bool:
    """Tell whether a field would steer the gateway's own call."""
    return name in _NAMES or name.startswith(_PREFIXES)
