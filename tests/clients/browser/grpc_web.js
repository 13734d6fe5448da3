// gRPC-Web by hand: requests as frames, answers read while they stream, binary or base64.
//
// Source: grpc/doc/PROTOCOL-WEB.md. The messages of grpc.testing are written and read with what is needed here only.

const utf8 = new TextEncoder();

// === Messages ===

const varint = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))]);

function join(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const number = (field, value) => Uint8Array.from([...varint(field << 3), ...varint(value)]);
const bytes = (field, data) => join([Uint8Array.from([...varint((field << 3) | 2), ...varint(data.length)]), data]);
const payload = (size) => bytes(3, bytes(2, new Uint8Array(size)));
const echoStatus = ({ code, message }) => bytes(7, join([number(1, code), bytes(2, utf8.encode(message))]));

// grpc.testing.SimpleRequest
export const simpleRequest = ({ size = 0, sent = 0, status }) =>
  join([number(2, size), payload(sent), ...(status ? [echoStatus(status)] : [])]);

// grpc.testing.StreamingOutputCallRequest
export const outputRequest = ({ sizes = [], everyMs = 0, status }) =>
  join([
    ...sizes.map((size) => bytes(2, join([number(1, size), number(2, everyMs * 1000)]))),
    ...(status ? [echoStatus(status)] : []),
  ]);

// The size of the payload in SimpleResponse and StreamingOutputCallResponse: field 1, and in it field 2.
export function payloadSize(data) {
  const read = (data, field) => {
    if (data.length === 0) return data;
    if (data[0] !== ((field << 3) | 2)) throw new Error(`not a payload: ${data.slice(0, 8)}`);
    let [length, shift, at] = [0, 0, 1];
    do {
      length |= (data[at] & 127) << shift;
      shift += 7;
    } while (data[at++] & 128);
    if (at + length !== data.length) throw new Error("a payload of another length");
    return data.subarray(at);
  };
  return read(read(data, 1), 2).length;
}

// === Frames ===

const length = (data) => [24, 16, 8, 0].map((bits) => (data.length >>> bits) & 255);
const frame = (data) => join([Uint8Array.from([0, ...length(data)]), data]);

const toBase64 = (data) => btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));

// Base64 of a stream: each piece that was flushed may end with padding of its own.
class Base64 {
  left = "";

  decode(data) {
    const text = this.left + new TextDecoder("ascii").decode(data);
    const whole = text.length - (text.length % 4);
    this.left = text.slice(whole);
    const pieces = text.slice(0, whole).match(/[^=]+={0,2}/g) ?? [];
    return join(pieces.map((piece) => Uint8Array.from(atob(piece), (letter) => letter.charCodeAt(0))));
  }
}

function trailersOf(data) {
  const lines = new TextDecoder().decode(data).split("\r\n").filter((line) => line !== "");
  const colon = (line) => line.indexOf(":");
  return new Map(lines.map((line) => [line.slice(0, colon(line)).toLowerCase(), line.slice(colon(line) + 1).trim()]));
}

// === Calls ===

// Makes a call. Answers with its messages, each with the time of its arrival, and its trailers.
export async function call(api, path, message, { text = false, metadata = {}, signal, onMessage } = {}) {
  const type = text ? "application/grpc-web-text" : "application/grpc-web+proto";
  const request = frame(message);
  const answer = await fetch(api + path, {
    method: "POST",
    headers: { "content-type": type, accept: type, "x-grpc-web": "1", "x-user-agent": "pointsman-tests", ...metadata },
    body: text ? toBase64(request) : request,
    signal,
  });
  const result = { http: answer.status, type: answer.headers.get("content-type"), messages: [], trailers: null };
  if (answer.status !== 200) throw new Error(`a bare HTTP answer: ${answer.status} ${await answer.text()}`);
  if (!result.type?.startsWith(text ? "application/grpc-web-text" : "application/grpc-web")) {
    throw new Error(`the answer is ${result.type}`);
  }
  const [reader, base64] = [answer.body.getReader(), new Base64()];
  let held = new Uint8Array(0);
  for (let piece; !(piece = await reader.read()).done; ) {
    held = join([held, text ? base64.decode(piece.value) : piece.value]);
    while (held.length >= 5) {
      const length = new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (held.length < 5 + length) break;
      const [flag, data] = [held[0], held.slice(5, 5 + length)];
      held = held.slice(5 + length);
      if (result.trailers) throw new Error("something came after the trailers");
      if (flag & 128) {
        result.trailers = trailersOf(data);
      } else {
        result.messages.push({ data, at: performance.now() });
        onMessage?.(data);
      }
    }
  }
  if (held.length || base64.left) throw new Error(`${held.length + base64.left.length} bytes are left over`);
  // A call without messages may have its status in the head.
  result.trailers ??= new Map(answer.headers);
  if (!result.trailers.has("grpc-status")) throw new Error("no grpc-status");
  result.status = Number(result.trailers.get("grpc-status"));
  result.message = decodeURIComponent(result.trailers.get("grpc-message") ?? "");
  return result;
}
