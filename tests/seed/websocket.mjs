/** A websocket client (RFC 6455) for a Node that has none: before version 22. Text, whole messages. */

import {createHash, randomBytes} from 'node:crypto';
import {request} from 'node:http';

const [TEXT, CLOSE, PING, PONG] = [0x1, 0x8, 0x9, 0xa];

export class WebSocket extends EventTarget {
  static OPEN = 1;
  readyState = 0;
  #stream = null;
  #buffer = Buffer.alloc(0);

  constructor(url) {
    super();
    for (const name of ['open', 'message', 'error', 'close']) {
      this.addEventListener(name, (event) => this[`on${name}`]?.(event));
    }
    const key = randomBytes(16).toString('base64');
    const headers = {
      Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13, 'Sec-WebSocket-Key': key,
    };
    const asked = request(url.replace('ws:', 'http:'), {headers});
    asked.on('upgrade', ({headers: answered}, stream, head) => {
      const expected = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      if (answered['sec-websocket-accept'] !== expected) return this.#fail(new Error('not accepted'));
      this.#stream = stream;
      this.readyState = 1;
      stream.on('data', (chunk) => this.#receive(chunk));
      stream.on('error', (error) => this.#fail(error));
      stream.on('close', () => this.#gone());
      this.dispatchEvent(new Event('open'));
      if (head.length) this.#receive(head);
    });
    asked.on('response', ({statusCode}) => this.#fail(new Error(`HTTP ${statusCode}`)));
    asked.on('error', (error) => this.#fail(error));
    asked.end();
  }

  send(text) {
    if (this.readyState === 0) throw new Error('InvalidStateError: still connecting');
    if (this.readyState === 1) this.#write(TEXT, Buffer.from(text));
  }

  close(code = 1000, reason = '') {
    if (this.readyState !== 1) return;
    this.readyState = 2;
    this.#write(CLOSE, Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]));
  }

  #write(opcode, payload) {
    const mask = randomBytes(4);
    const length = payload.length < 126
      ? Buffer.from([0x80 | payload.length])
      : Buffer.from([0x80 | 126, payload.length >> 8, payload.length & 255]);
    this.#stream.write(Buffer.concat([Buffer.from([0x80 | opcode]), length, mask, payload.map((b, i) => b ^ mask[i & 3])]));
  }

  #receive(chunk) {
    this.#buffer = Buffer.concat([this.#buffer, chunk]);
    while (this.#buffer.length >= 2) {
      let [head, length, at] = [this.#buffer[0], this.#buffer[1], 2];
      if (length >= 126) {
        at = length === 126 ? 4 : 10;
        if (this.#buffer.length < at) return;
        length = length === 126 ? this.#buffer.readUInt16BE(2) : Number(this.#buffer.readBigUInt64BE(2));
      }
      if (this.#buffer.length < at + length) return;
      const payload = this.#buffer.subarray(at, at + length);
      this.#buffer = this.#buffer.subarray(at + length);
      this.#take(head, payload);
    }
  }

  #take(head, payload) {
    switch (head) {
      case 0x80 | TEXT:
        return this.dispatchEvent(new MessageEvent('message', {data: payload.toString()}));
      case 0x80 | PING:
        return this.#write(PONG, payload);
      case 0x80 | PONG:
        return true;
      case 0x80 | CLOSE:
        if (this.readyState === 1) this.#write(CLOSE, payload);
        return this.#stream.end();
      default:
        return this.#fail(new Error(`a frame that begins with ${head}`));
    }
  }

  #fail(error) {
    this.dispatchEvent(Object.assign(new Event('error'), {error}));
    if (this.#stream) this.#stream.destroy();
    else this.#gone();
  }

  #gone() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.dispatchEvent(new Event('close'));
  }
}
