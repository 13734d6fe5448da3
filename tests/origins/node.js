// Node's http module as an origin: records each request from within, and also what it could not parse.
'use strict';

const { createHash } = require('node:crypto');
const { appendFileSync } = require('node:fs');
const { createServer } = require('node:http');

const { ORIGIN_PORT, ORIGIN_SEEN } = process.env;

function write(request, body, complete, status) {
  const line = {
    method: request ? request.method : '',
    target: request ? request.url : '',
    case: (request && request.headers['x-case']) || null,
    length: body ? body.length : null,
    sha256: body ? createHash('sha256').update(body).digest('hex') : null,
    complete,
    status,
    at: Date.now() / 1000,
  };
  appendFileSync(ORIGIN_SEEN, JSON.stringify(line) + '\n');
}

// The same characters stay as they are as in handler.py.
function saw(request) {
  const target = request.url.replace(/[^A-Za-z0-9_.\-/:?=&*%#[\]@!$()+,;~]/g, (c) => {
    return '%' + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0');
  });
  return `${request.method} ${target}`;
}

function refuse(socket, status) {
  socket.end(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
}

// Sockets of which something is recorded that is not answered yet: what then fails is no request of its own.
const told = new WeakSet();

function answer(request, response) {
  const pieces = [];
  let ended = false;
  told.add(request.socket);
  response.on('finish', () => told.delete(request.socket));
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    ended = true;
    // Before the answer, so that whoever has the answer finds the line.
    write(request, Buffer.concat(pieces), true, 200);
    response.writeHead(200, { 'Content-Length': request.method === 'HEAD' ? 0 : 5, 'X-Saw': saw(request) });
    response.end(request.method === 'HEAD' ? undefined : 'seen\n');
  });
  request.on('close', () => ended || write(request, Buffer.concat(pieces), false, 400));
  request.on('error', () => {});
}

const server = createServer({ keepAliveTimeout: 60000, requireHostHeader: true }, answer);

// A tunnel is none of ours: the request is recorded, the connection closed.
for (const event of ['connect', 'upgrade']) {
  server.on(event, (request, socket) => {
    write(request, Buffer.alloc(0), true, 501);
    refuse(socket, '501 Not Implemented');
  });
}

server.on('clientError', (error, socket) => {
  // A connection that was reset or was silent too long is nothing that was said.
  if (error.code && error.code.startsWith('HPE_') && !told.has(socket)) write(null, null, false, 400);
  told.add(socket);
  if (socket.writable && !socket.writableEnded) refuse(socket, '400 Bad Request');
  else socket.destroy();
});

server.listen(Number(ORIGIN_PORT), '127.0.0.1', 512);
