// Calls of every kind that the instrumentation knows.
import OpenAI from 'openai';
import { billedTo } from './metering.mjs';

const openai = new OpenAI();
const messages = [{ role: 'user', content: 'Hello' }];
const model = 'gpt-4o-mini';

await billedTo('acme', () => openai.chat.completions.create({ model, messages }));

await billedTo('acme', async () => {
  // Without include_usage a stream says nothing of what it used.
  const stream = await openai.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
});

await billedTo('globex', () =>
  openai.embeddings.create({ model: 'text-embedding-3-small', input: 'Hello' }),
);

await billedTo('globex', () => openai.responses.create({ model, input: 'Hello' }));
