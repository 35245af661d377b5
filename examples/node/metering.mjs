// Every OpenAI call becomes a span, which goes to the Collector: node --import ./metering.mjs app.mjs
// OTEL_EXPORTER_OTLP_ENDPOINT says where the Collector is.
import { AsyncLocalStorage } from 'node:async_hooks';
import { register } from 'node:module';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { OpenAIInstrumentation } from '@opentelemetry/instrumentation-openai';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { BatchSpanProcessor } from '@opentelemetry/sdk-trace';

// Modules that are imported, not required, are instrumented by a hook of the loader.
register('@opentelemetry/instrumentation/hook.mjs', import.meta.url);

const customer = new AsyncLocalStorage();

/** Bill what `call` does to the customer `id`. */
export const billedTo = (id, call) => customer.run(id, call);

/** Writes who pays on each span. */
const customerProcessor = {
  onStart(span) {
    const id = customer.getStore();
    if (id !== undefined) span.setAttribute('cmdrdata.customer.id', id);
  },
  onEnd() {},
  async forceFlush() {},
  async shutdown() {},
};

const sdk = new NodeSDK({
  serviceName: process.env.OTEL_SERVICE_NAME ?? 'shop',
  // Content stays here: captureMessageContent is false unless you set it.
  instrumentations: [new OpenAIInstrumentation()],
  spanProcessors: [customerProcessor, new BatchSpanProcessor({ exporter: new OTLPTraceExporter() })],
});
sdk.start();

// Spans wait in memory until they are sent: send them before the process ends.
const end = () => sdk.shutdown();
process.once('beforeExit', end);
process.once('SIGTERM', () => end().finally(() => process.exit(0)));
