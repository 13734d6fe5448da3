// The gRPC-Web cases: what a page needs to see of a gRPC server. Each is run with binary and with text framing.

import { call, outputRequest, payloadSize, simpleRequest } from "./grpc_web.js";

const SERVICE = "/grpc.testing.TestService/";
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function equal(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: ${a}, not ${e}`);
}

const sizes = (answer) => answer.messages.map(({ data }) => payloadSize(data));

// What the server knows of a call.
async function seen(api, name, options) {
  const answer = await call(api, "/pointsman.testing.Recorder/Seen", new TextEncoder().encode(name), options);
  equal(answer.status, 0, "recorder");
  return JSON.parse(new TextDecoder().decode(answer.messages[0].data)).state;
}

const cases = {
  async empty_unary(api, options) {
    const answer = await call(api, SERVICE + "EmptyCall", new Uint8Array(0), options);
    equal([answer.status, answer.messages.map(({ data }) => data.length)], [0, [0]], "answer");
  },

  async unary(api, options) {
    const answer = await call(api, SERVICE + "UnaryCall", simpleRequest({ size: 314159, sent: 271828 }), options);
    equal([answer.status, sizes(answer)], [0, [314159]], "answer");
  },

  // One by one: a proxy that gathers them first is no help to a page.
  async server_streaming(api, options) {
    const request = outputRequest({ sizes: [31415, 9, 2653, 58979], everyMs: 200 });
    const answer = await call(api, SERVICE + "StreamingOutputCall", request, options);
    equal([answer.status, sizes(answer)], [0, [31415, 9, 2653, 58979]], "answer");
    const gaps = answer.messages.slice(1).map(({ at }, before) => Math.round(at - answer.messages[before].at));
    if (gaps.some((gap) => gap < 100)) throw new Error(`messages sent every 200 ms came after ${gaps} ms`);
  },

  async status_and_message(api, options) {
    const status = { code: 2, message: "test status message" };
    for (const [method, request] of [["UnaryCall", simpleRequest], ["StreamingOutputCall", outputRequest]]) {
      const answer = await call(api, SERVICE + method, request({ status }), options);
      equal([answer.status, answer.message, sizes(answer)], [2, status.message, []], method);
    }
  },

  async special_status_message(api, options) {
    const request = simpleRequest({ status: { code: 2, message: SPECIAL } });
    const answer = await call(api, SERVICE + "UnaryCall", request, options);
    equal([answer.status, answer.message], [2, SPECIAL], "answer");
  },

  async unimplemented_method(api, options) {
    const answer = await call(api, SERVICE + "UnimplementedCall", new Uint8Array(0), options);
    equal(answer.status, 12, "status");
  },

  async metadata_trailers(api, options) {
    const metadata = { "x-grpc-test-echo-initial": "any", "x-grpc-test-echo-trailing-bin": "q6ur" };
    for (const [method, request, came] of [
      ["UnaryCall", simpleRequest({ size: 10 }), [10]],
      ["StreamingOutputCall", outputRequest({ sizes: [10, 20] }), [10, 20]],
    ]) {
      const answer = await call(api, SERVICE + method, request, { ...options, metadata });
      equal([answer.status, sizes(answer)], [0, came], method);
      equal(answer.trailers.get("x-grpc-test-echo-trailing-bin")?.replace(/=+$/, ""), "q6ur", `${method}, trailer`);
      if (!answer.trailers.has("x-test-peer")) throw new Error(`${method}: only ${[...answer.trailers.keys()]} came`);
    }
  },

  // A page that goes away must end the call at the server.
  async cancelled(api, options) {
    const [name, control] = [crypto.randomUUID(), new AbortController()];
    const more = { metadata: { "x-test-call": name }, signal: control.signal, onMessage: () => control.abort() };
    const request = outputRequest({ sizes: [10, 10], everyMs: 200 });
    const long = outputRequest({ sizes: Array(100).fill(10), everyMs: 200 });
    const stream = call(api, SERVICE + "StreamingOutputCall", long, { ...options, ...more });
    equal(await stream.catch((why) => why.name), "AbortError", "the call");
    let state;
    for (let tries = 0; tries < 50 && state !== "cancelled"; tries++) {
      await sleep(100);
      state = await seen(api, name, options);
    }
    equal(state, "cancelled", "the server's side");
    equal((await call(api, SERVICE + "StreamingOutputCall", request, options)).status, 0, "the next call");
  },
};

// Runs all cases; `text`: with base64 framing.
async function run(api, text) {
  const results = [];
  for (const [name, test] of Object.entries(cases)) {
    const result = { name: `${name} (${text ? "text" : "binary"})`, why: null };
    await test(api, { text }).catch((why) => (result.why = `${why.name}: ${why.message}`));
    results.push(result);
    const line = document.createElement("li");
    line.textContent = result.why ? `FAILED ${result.name}: ${result.why}` : `ok ${result.name}`;
    document.querySelector("#results").append(line);
  }
  return results;
}

// From an origin that may not: how a call ends, which names itself to the server's recorder.
async function attempt(api, name) {
  const options = { metadata: { "x-test-call": name } };
  return call(api, SERVICE + "UnaryCall", simpleRequest({ size: 10 }), options).then(
    (answer) => `answered with status ${answer.status}`,
    (why) => why.name,
  );
}

window.grpcWeb = { run, attempt, seen };
const api = new URLSearchParams(location.search).get("api");
if (api) for (const text of [false, true]) await run(api, text);
