/**
 * Types of `client.js`. All below `Client` is made of the daemon's own message types, whenever it starts.
 *
 * A daemon of a later version may send fields that are not here; the client passes over types that it does not know.
 */

/** What `subscribe` takes beside the channels. */
export type SubscribeOptions = Omit<Subscribe, 'type' | 'channels' | 'id'>;

export interface Options extends Omit<SubscribeOptions, 'since'> {
  /** Names, or `['*']` for all. */
  channels?: string[];
  /** Where one is needed. */
  token?: string;
  /** Begin so many messages (of all channels) before the newest. */
  replay?: number;
  /** The constructor, where there is no global one: in a Node before version 22. */
  WebSocket?: new (url: any, protocol: any) => object;
  /** A data message, and its text as it came: `JSON.parse` makes 42150.5 of `42150.50`, the text has all digits. */
  onMessage?(message: DataMessage, text: string): void;
  /** A channel is `live`, `stale`, `down`... */
  onStatus?(status: Status): void;
  /** The state of the connection. */
  onState?(state: State): void;
  /** What else the daemon says, and what may be missing. */
  onEvent?(event: Told): void;
}

/** `closed` is for good: by `close()`, or since coming back would not help. */
export type State =
  | {state: 'connecting'}
  | {state: 'open'; welcome: Welcome}
  | {state: 'waiting'; code: number; reason: string; retry_in_s: number}
  | {state: 'closed'; code: number; reason: string};

/** The connection is back, and every subscription is restored. */
export interface Resumed {
  type: 'resumed';
  /** Whether nothing is missing. */
  recovered: boolean;
  /** The channels that go on from their newest message. */
  lost: string[];
  /** Whether the daemon has begun another tape, so that positions start anew. */
  restarted: boolean;
  away_ms: number;
}

/** Messages are missing without an announcement. */
export interface Gap {
  type: 'gap';
  channel: string;
  instrument?: string;
  /** `seq` of the last message before it. */
  after?: number;
  /** `seq` of the first message after it, which follows. */
  before: number;
}

export type Told = Subscribed | Unsubscribed | Lagged | Pong | ErrorMessage | Test | Goodbye | Resumed | Gap;

/** A message that `JSON.parse` has read. */
export type Message = DataMessage | ControlMessage;

/**
 * Connect, and stay connected. `url` may be relative where the page or worker has an address of its own.
 *
 * Throws a `TypeError` where there is no `WebSocket`, and where the URL is none.
 */
export function connect(url: string, options?: Options): Client;

export interface Client {
  /** Returns the `id` of the answer. It holds on later connections too. */
  subscribe(channels: string[], options?: SubscribeOptions): string;
  /** Leave these channels, or `['*']`. Returns the `id` of the answer. */
  unsubscribe(channels: string[]): string;
  /** Returns the `id` of the `pong`. */
  ping(): string;
  /** What there still is of a channel. Rejects with an `Error` that has the daemon's `code` where it refuses. */
  history(
    channel: string,
    query?: {instrument?: string; limit?: number; before?: number; before_ms?: number},
  ): Promise<History>;
  /** For good. */
  close(): void;
}
