// The tool loop of vercel's `ai`, for each case that comes as a line of JSON on standard input; a line of JSON answers it.
// The first argument is the folder of the installation.
import { exec } from 'node:child_process'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

globalThis.AI_SDK_LOG_WARNINGS = ({ warnings }) => console.error(`Warning: ${JSON.stringify(warnings)}`)

const installed = createRequire(process.argv[2] + '/')
const load = (name) => import(pathToFileURL(installed.resolve(name)))
const { generateText, jsonSchema, stepCountIs, streamText, tool } = await load('ai')
const { createOpenAI } = await load('@ai-sdk/openai')
const { createAnthropic } = await load('@ai-sdk/anthropic')

function modelOf({ api, url, key, model }) {
  const options = { baseURL: `${url}/v1`, apiKey: key }
  if (api === 'anthropic') return createAnthropic(options)(model)
  return api === 'openai-chat' ? createOpenAI(options).chat(model) : createOpenAI(options).responses(model)
}

async function run(asked) {
  const runCommand = tool({
    description: 'Run a shell command and return its output.',
    inputSchema: jsonSchema({
      type: 'object',
      properties: { command: { type: 'string' } },
      required: ['command'],
      additionalProperties: false,
    }),
    execute: async ({ command }) => (await promisify(exec)(command, { cwd: asked.folder })).stdout,
  })
  const options = {
    model: modelOf(asked),
    prompt: asked.prompt,
    tools: { run_command: runCommand },
    stopWhen: stepCountIs(5),
    maxRetries: 0,
    providerOptions: { openai: { store: false } },
  }
  if (!asked.stream) return (await generateText(options)).text
  let failure
  const result = streamText({ ...options, onError: ({ error }) => { failure ??= error } })
  await result.consumeStream()
  if (failure) throw failure
  return await result.text
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  let answer
  try {
    answer = { text: await run(asked) }
  } catch (error) {
    answer = { error: `${error}${error?.cause ? `: ${error.cause}` : ''}` }
  }
  process.stdout.write(JSON.stringify({ name: asked.name, ...answer }) + '\n')
}
