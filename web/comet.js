/**
 * comet.js: what is published on a channel, in the browser, within a millisecond.
 *
 *   const news = Comet.subscribe(['news', 'user.42'], {
 *     message(m) { console.log(m.channel, m.id, m.name, m.data); },
 *     gap() { location.reload(); },
 *     state(s) { document.title = s; },
 *   });
 *   news.close();
 *   Comet.publish('news', 'hi').then((id) => console.log(id));
 *
 * A subscription is a set of channels and a cursor, the id of the last message that was seen. It begins with a
 * poll that does not wait, which tells the cursor or the reason of a refusal; then it streams (Server-Sent
 * Events), or polls where streams cannot be had. Whatever ends that, it begins again from its cursor. So no
 * message is lost or seen twice, and where the daemon no longer has what was missed, `gap` is called. A daemon that
 * stops says when to come back.
 *
 * A browser has six HTTP/1.1 connections to a host, for all its tabs, and a subscription holds one: subscribe once a
 * page, with all its channels.
 *
 * A plain script that defines `Comet`; `import './comet.js'` defines it as well. No dependencies.
 */
(function () {
  'use strict';

  /** Seconds that a long-poll may wait for a message; shorter than what proxies cut. */
  const WAIT = 25;
  /** Milliseconds that an answer may take beyond that, and that a stream may take to say something. */
  const PATIENCE = 10000;
  /** So many streams in a row that were none, while polls are answered: something on the way forbids them. */
  const STREAM_TRIES = 3;
  /** Bounds of the back-off in milliseconds. */
  const FIRST_PAUSE = 1000;
  const LONGEST_PAUSE = 15000;
  /** Whatever the daemon says, nobody stays away for longer, in milliseconds. */
  const LONGEST_ABSENCE = 300000;

  /**
   * One message.
   * @typedef {Object} Message
   * @property {string} channel
   * @property {number} id  microseconds since 1970, strictly increasing over all channels
   * @property {string} name  its label, usually empty
   * @property {string} data  text, or base64 when `encoding` says so
   * @property {string} [encoding]  `'base64'` for data that is not UTF-8
   */

  /**
   * What a subscriber wants to hear of; all of it is optional.
   * @typedef {Object} Handlers
   * @property {function(Message): void} [message]  each message, once, in the order of ids
   * @property {function(): void} [gap]  messages were missed and are gone: load the state anew
   * @property {function(string, string=): void} [state]  `'connecting'` at first; `'open'`: what is published
   *   from now on comes; `'away'`: the daemon cannot be reached, it is tried again; `'closed'`: by `close()`, or
   *   refused by the daemon for the reason in the second argument
   */

  /**
   * Subscribes to channels until it is closed.
   * @param {string|string[]} channels  one or more names
   * @param {Handlers} handlers
   * @param {Object} [options]
   * @param {string} [options.url]  where the daemon has its channels, with the last slash; `'/ch/'`
   * @param {number|string} [options.since]  begin after this id, `0` for all that is kept, or a time such as
   *   `'2026-01-31T12:00:00Z'`; from now on when left out
   * @param {string|function(): (string|Promise<string>)} [options.token]  a token, for channels that need one. A function is
   *   asked at first, and for a new one when the daemon says that the last has expired. Where it gives one, the subscription
   *   polls: a browser's EventSource can bring the cookie `__Host-comet` alone. A function may set that, and give `''`
   * @param {string} [options.transport]  `'sse'` (falls back to long-poll by itself) or `'longpoll'`
   * @returns {{close: function(): void, cursor: ?number}}  `cursor` may be the `since` of a later subscription;
   *   `null` as long as it is not known
   */
  function subscribe(channels, handlers, options) {
    const subscription = new Subscription([].concat(channels), handlers || {}, options || {});
    Promise.resolve().then(() => subscription.run()); // no handler runs before the caller has what we return
    return {
      close() {
        subscription.close();
      },
      get cursor() {
        return subscription.cursor;
      },
    };
  }

  /**
   * Publishes one message, where the daemon lets browsers do so.
   * @param {string} channel
   * @param {string|Blob|ArrayBuffer} data
   * @param {Object} [options]
   * @param {string} [options.name]  label of the message
   * @param {string} [options.key]  a second message with the same key is not published again, so it may be
   *   repeated when no answer came
   * @param {string} [options.url]  as for `subscribe`
   * @param {string|function(): (string|Promise<string>)} [options.token]  a token, where the channel needs one
   * @returns {Promise<number>}  its id; rejected with an `Error` that has the daemon's `message`, `code` and `status`
   */
  async function publish(channel, data, options) {
    const { name = '', key = '', url = '/ch/', token = '' } = options || {};
    const query = name && '?name=' + encodeURIComponent(name);
    const headers = bearer(typeof token === 'function' ? await token() : token);
    if (key) {
      headers['Idempotency-Key'] = key;
    }
    const answer = await request(url + encodeURIComponent(channel) + query, { method: 'POST', body: data, headers });
    return answer.id;
  }

  class Subscription {
    constructor(channels, handlers, { url = '/ch/', since = null, transport = 'sse', token = '' }) {
      this.url = url + channels.map(encodeURIComponent).join(',');
      this.handlers = handlers;
      this.since = since;
      this.newToken = typeof token === 'function' ? token : null;
      this.token = this.newToken ? null : token;
      /** No answer has shown yet that it is good. */
      this.tokenIsNew = true;
      this.cursor = null;
      this.streams = transport !== 'longpoll' && typeof EventSource === 'function';
      this.failedStreams = 0;
      this.failures = 0;
      /** The daemon is stopping, and asks to come back after so many milliseconds. */
      this.retry = null;
      this.lastState = '';
      this.closed = false;
      /** Ends what is under way: a request, a stream or a pause. */
      this.interrupt = () => {};
    }

    async run() {
      this.say('connecting');
      while (!this.closed) {
        try {
          await this.poll(0);
          if (this.retry === null) {
            this.say('open');
            await this.listen();
          }
        } catch (error) {
          if (error.status === 401 && this.newToken && !this.tokenIsNew) {
            this.token = null;
            continue; // the next one, from the same cursor
          }
          if (error.refused) {
            this.close(error.message);
          }
        }
        if (!this.closed) {
          this.say('away');
          await this.pause();
        }
      }
    }

    async listen() {
      if (!this.closed && this.streams && !this.token && this.failedStreams < STREAM_TRIES) {
        await this.stream();
      } else {
        await this.pollOnAndOn();
      }
    }

    close(reason) {
      this.say('closed', reason);
      this.closed = true;
      this.interrupt();
    }

    async pollOnAndOn() {
      while (!this.closed) {
        const began = Date.now();
        const { messages, gap } = await this.poll(WAIT);
        if (this.retry !== null || (!messages.length && !gap && Date.now() - began < 1000)) {
          return; // told to come back; or answered at once with nothing, which must not go on and on
        }
        this.failures = 0;
      }
    }

    /** One long-poll; rejected when there is no answer or none of the daemon's. */
    async poll(wait) {
      if (this.token === null) {
        this.token = await this.newToken();
        this.tokenIsNew = true;
      }
      const since = this.cursor === null ? this.since : this.cursor;
      const from = since === null ? '' : '&since=' + encodeURIComponent(since);
      const controller = new AbortController();
      const timer = setTimeout(() => controller.abort(), wait * 1000 + PATIENCE);
      this.interrupt = () => controller.abort();
      try {
        const init = { cache: 'no-store', signal: controller.signal, headers: bearer(this.token) };
        const answer = await request(this.url + '?wait=' + wait + from, init);
        this.tokenIsNew = false;
        const cursor = Number(answer.cursor);
        if (answer.gap) {
          this.skipTo(answer.messages.length ? answer.messages[0].id - 1 : cursor);
        }
        answer.messages.forEach((message) => this.take(message));
        if (!this.closed) {
          this.cursor = cursor;
        }
        this.noteRetry(answer);
        return answer;
      } finally {
        clearTimeout(timer);
      }
    }

    /** One stream, from its opening to its end, which an EventSource would not tell us the reason of. */
    stream() {
      return new Promise((resolve) => {
        const source = new EventSource(this.url + '?since=' + this.cursor);
        this.failedStreams += 1;
        const works = () => {
          this.failedStreams = 0;
          this.failures = 0;
        };
        const end = () => {
          clearTimeout(timer);
          source.close(); // its own reconnect knows no jitter, and gives up for good on some errors
          resolve();
        };
        // The daemon says something at once: where nothing comes, a proxy holds it back.
        let timer = setTimeout(end, PATIENCE);
        let heartbeat = 0; // as the daemon says it
        this.interrupt = end;
        const on = (type, take) => {
          source.addEventListener(type, (event) => {
            works();
            take(JSON.parse(event.data));
            clearTimeout(timer);
            if (heartbeat) {
              timer = setTimeout(end, 2 * heartbeat + PATIENCE); // a connection can die without a word
            }
          });
        };
        on('message', (message) => this.take(message));
        on('gap', (gap) => this.skipTo(Number(gap.cursor)));
        on('cursor', (sign) => {
          this.moveTo(Number(sign.cursor));
          heartbeat = sign.heartbeat * 1000;
          this.noteRetry(sign);
        });
        source.onerror = end;
      });
    }

    take(message) {
      if (this.closed || message.id <= this.cursor) {
        return;
      }
      this.cursor = message.id;
      this.call('message', message);
    }

    /** Everything up to here was seen: a cursor that stays behind would be told a gap in vain one day. */
    moveTo(cursor) {
      if (!this.closed && cursor > this.cursor) {
        this.cursor = cursor;
      }
    }

    /** A gap: what the daemon still has comes next. It may lie before our cursor, when ids were lost as well. */
    skipTo(cursor) {
      if (!this.closed) {
        this.cursor = cursor;
        this.call('gap');
      }
    }

    /** A daemon that stops gives each client a time of its own. */
    noteRetry({ retry }) {
      if (typeof retry === 'number') {
        this.retry = Math.min(LONGEST_ABSENCE, retry);
      }
    }

    /** Longer from failure to failure, and random, so that a restarted daemon does not meet all at once. */
    nextPause() {
      if (this.retry !== null) {
        const retry = this.retry;
        this.retry = null;
        return retry;
      }
      const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.failures);
      this.failures += 1;
      return 100 + Math.random() * longest;
    }

    pause() {
      const time = this.nextPause();
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, time);
        this.interrupt = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }

    say(state, reason) {
      if (!this.closed && state !== this.lastState) {
        this.lastState = state;
        this.call('state', state, reason);
      }
    }

    call(handler, ...args) {
      if (this.closed || !this.handlers[handler]) {
        return;
      }
      try {
        this.handlers[handler](...args);
      } catch (error) {
        // The page's mistake: reported as uncaught, and no reason to end the subscription.
        setTimeout(() => {
          throw error;
        });
      }
    }
  }

  function bearer(token) {
    return token ? { Authorization: 'Bearer ' + token } : {};
  }

  /** Fetches JSON. An error is `refused` when the daemon itself said that asking again is of no use. */
  async function request(url, init) {
    const answer = await fetch(url, init);
    const text = await answer.text();
    let body;
    try {
      body = JSON.parse(text);
    } catch (_) {
      body = null; // a proxy's page
    }
    if (answer.ok && body) {
      return body;
    }
    const { error: code, message } = body || {};
    const error = new Error(message || 'HTTP status ' + answer.status);
    const passing = answer.status >= 500 || answer.status === 408 || answer.status === 429;
    throw Object.assign(error, { status: answer.status, code, refused: Boolean(code) && !passing });
  }

  self.Comet = { subscribe, publish };
})();
