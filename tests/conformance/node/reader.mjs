// Reads answers with the official SDKs for TypeScript: one JSON job a line in, one JSON result a line out.
//
// A job is {"client", "url", "stream", "request"}; a result is what the SDK accumulated, or {"error": message}.

import { createInterface } from "node:readline";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const OPTIONS = { apiKey: "k", maxRetries: 0 };

const READERS = {
  async openai({ url, stream, request }) {
    const client = new OpenAI({ ...OPTIONS, baseURL: `${url}/v1` });
    if (!stream) return client.chat.completions.create(request);
    return client.chat.completions.stream({ ...request, stream_options: { include_usage: true } }).finalChatCompletion();
  },
  async anthropic({ url, stream, request }) {
    const client = new Anthropic({ ...OPTIONS, baseURL: url });
    return stream ? client.beta.messages.stream(request).finalMessage() : client.beta.messages.create(request);
  },
  async responses({ url, stream, request }) {
    const client = new OpenAI({ ...OPTIONS, baseURL: `${url}/v1` });
    return stream ? client.responses.stream(request).finalResponse() : client.responses.create(request);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let result;
  try {
    const job = JSON.parse(line);
    result = await READERS[job.client](job);
  } catch (error) {
    result = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
