// Drives the router with openai-node as people do; prints one JSON object with what it got.
import OpenAI from "openai";

const [, , baseURL, model, other] = process.argv;
const client = new OpenAI({ baseURL, apiKey: "sk-local" });
const messages = [{ role: "user", content: "Who are you?" }];
const got = {};

// The strict loop of many scripts: no question mark anywhere.
got.loop = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  got.loop += chunk.choices[0].delta.content ?? "";
}

// The helper, over a switch.
const runner = client.chat.completions.stream({ model: other, messages });
got.helper = await runner.finalContent();

// A whole answer, with its headers, over a switch back.
const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
got.whole = data.choices[0].message.content;
got.header = response.headers.get("x-llm-router-model");

got.models = (await client.models.list()).data.map((entry) => entry.id);

try {
  await client.chat.completions.create({ model: "nobody", messages });
} catch (error) {
  got.error = { status: error.status, code: error.code, message: error.message };
}

const answer = await client.responses.create({ model: other, input: "Who are you?" });
got.responses = answer.output_text;

const events = client.responses.stream({ model: other, input: "Who are you?" });
got.responsesHelper = (await events.finalResponse()).output_text;

console.log(JSON.stringify(got));
