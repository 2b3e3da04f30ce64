/**
 * comet.js: what is published on a channel, in the browser, within a millisecond.
 *
 *   const news = Comet.subscribe(['news', 'user.42'], {
 *     message(m) { console.log(m.channel, m.id, m.name, m.data); },
 *     gap() { loadEverythingAnew(); },
 *     state(s) { document.title = s; },
 *   });
 *   news.close();
 *   Comet.publish('news', 'hi').then((id) => console.log(id));
 *
 * A subscription is a set of channels and a cursor, the id of the last message that the page saw. A subscription
 * begins with a poll that does not wait. The answer tells the cursor, or the reason of a refusal. Then the
 * subscription joins a connection: one stream (Server-Sent Events) for all subscriptions of the page that use the
 * same URL, token, credentials and transport, or one long-poll after the other where streams cannot be had. When the
 * connection ends, the next one begins at the cursor. So no message is lost or seen twice. Where the daemon no longer
 * has what was missed, `gap` is called.
 *
 * Over HTTP/1.1 a browser opens six connections to a host at most, for all its tabs together. Each tab holds one.
 *
 * A plain script that defines `Comet`; `import './comet.js'` defines it as well. No dependencies.
 */
(function () {
  'use strict';

  /** Seconds that a long-poll may wait for a message; shorter than the time after which proxies cut. */
  const WAIT = 25;
  /** Seconds that the first long-poll waits. Its answer shows that waiting polls are answered. */
  const FIRST_WAIT = 1;
  /** Milliseconds that an answer may take beyond its wait, and that a stream may be silent beyond two heartbeats. */
  const PATIENCE = 10000;
  /** Milliseconds that the rest of a poll's answer may take after its head: up to 7.6 MiB, to a phone as well. */
  const LONGEST_BODY = 120000;
  /** A poll that is answered within this time, in milliseconds, did not wait. */
  const AT_ONCE = 800;
  /** A stream that lasted so long, in milliseconds, was no failure. */
  const LASTED = 5000;
  /** Milliseconds between two signs of life of a stream, until the daemon says how many. */
  const HEARTBEAT = 15000;
  /** After so many streams in a row that failed while polls were answered, the page polls. */
  const STREAM_TRIES = 3;
  /** A stream that gives a message so many milliseconds after a poll would have given it is held back. */
  const LATE = 2000;
  /** Milliseconds between two tests for a stream that is held back. */
  const NEXT_TEST = 10000;
  /** Bounds of the back-off in milliseconds. */
  const FIRST_PAUSE = 1000;
  const LONGEST_PAUSE = 15000;
  /** Bounds of the time after which the daemon asks to come back, in milliseconds. */
  const SHORTEST_RETRY = 500;
  const LONGEST_RETRY = 300000;
  /** Bounds of the pause between two calls of `gap`, in milliseconds; without a gap for so long, all is well again. */
  const FIRST_GAP_PAUSE = 1000;
  const LONGEST_GAP_PAUSE = 60000;
  const GAPS_FORGOTTEN = 300000;
  /** Milliseconds in which subscriptions that come and go change a connection once. */
  const GATHER = 10;
  /** Bounds of one connection's request: channels, and bytes of their names in the URL. */
  const MOST_CHANNELS = 100;
  const LONGEST_NAMES = 2000;

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
   * @property {function(): void} [gap]  messages were missed and are gone: load the state anew. Gaps that follow each
   *   other fast are told together, after a pause that grows to a minute, also when the page was reloaded meanwhile
   * @property {function(string, string=): void} [state]  `'connecting'` at first; `'open'`: the daemon has answered
   *   the stream or waiting poll that brings what is published from now on; `'away'`: the daemon cannot be reached, or
   *   the page's `token` function failed for the reason in the second argument, and it is tried again; `'closed'`: by
   *   `close()`, or refused by the daemon for the reason in the second argument
   */

  /**
   * Subscribes to channels until it is closed.
   * @param {string|string[]} channels  one or more names
   * @param {Handlers} handlers
   * @param {Object} [options]
   * @param {string} [options.url]  where the daemon has its channels, with the last slash; `'/ch/'`
   * @param {number|string} [options.since]  begin after this id, `0` for all that is kept, or a time such as
   *   `'2026-01-31T12:00:00Z'`; from now on when left out
   * @param {string|function(): (string|Promise<string>)} [options.token]  a token, for channels that need one. A
   *   function is asked at first, and for a new token when the daemon says that the last one has expired; it may take
   *   10 s. It may set the cookie `__Host-comet` and give `''`. Subscriptions with the same function share a connection
   * @param {boolean} [options.credentials]  bring cookies to a daemon of another origin, which has to list this page's
   *   origin by name
   * @param {string} [options.transport]  `'sse'` (falls back to long-poll by itself) or `'longpoll'`
   * @returns {{close: function(): void, cursor: ?number}}  `cursor` may be the `since` of a later subscription;
   *   `null` as long as it is not known
   */
  function subscribe(channels, handlers, options) {
    const subscription = new Subscription([].concat(channels).map(String), handlers || {}, options || {});
    Promise.resolve().then(() => subscription.begin()); // no handler runs before the caller has what we return
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
   * @param {string} [options.url]  as for `subscribe`, like `token` and `credentials`
   * @param {string|function(): (string|Promise<string>)} [options.token]
   * @param {boolean} [options.credentials]
   * @returns {Promise<number>}  its id; rejected with an `Error` that has the daemon's `message`, `code` and `status`
   */
  async function publish(channel, data, options) {
    const { name = '', key = '' } = options || {};
    const query = name && '?name=' + encodeURIComponent(name);
    const headers = key ? { 'Idempotency-Key': key } : {};
    const access = new Access(options || {});
    const answer = await access.request(encodeURIComponent(channel) + query, { method: 'POST', body: data, headers });
    return (await json(answer)).id;
  }

  /** Subscriptions that have been answered; each shares its connection with others of the page. */
  const connections = [];
  /** Who waits before the next attempt. */
  const pausing = new Set();

  class Subscription {
    constructor(channels, handlers, options) {
      this.channels = channels;
      this.names = channels.map(encodeURIComponent);
      this.handlers = handlers;
      this.since = options.since === undefined ? null : options.since;
      this.access = Access.of(options);
      this.streams = options.transport !== 'longpoll' && canStream();
      this.cursor = null;
      this.lastState = '';
      this.closed = false;
      this.connection = null;
      this.pacer = new Pacer();
      this.task = null;
      /** Names the gaps of this subscription in the tab's memory. */
      this.gaps = 'gaps ' + this.access.url + this.names;
      this.gapTimer = 0;
    }

    /** Polls until the daemon has told a cursor, then joins a connection. */
    async begin() {
      if (!this.lastState) {
        this.say('connecting');
      }
      while (!this.closed) {
        try {
          this.pacer.retry = null;
          await this.poll();
          if (!this.closed && this.pacer.retry === null) {
            join(this);
            return;
          }
        } catch (error) {
          this.fail(error);
        }
        if (!this.closed) {
          await this.pacer.pause();
        }
      }
    }

    async poll() {
      this.task = new Task();
      const answer = await this.access.poll(this.names, this.cursor === null ? this.since : this.cursor, 0, this.task);
      const { messages, cursor } = answer;
      if (answer.gap) {
        this.skipTo(gapEnd(answer));
      }
      messages.forEach((message) => this.take(message));
      if (!this.closed) {
        this.cursor = cursor;
      }
      this.pacer.note(answer.retry);
    }

    /** A request failed; only the daemon itself and `close()` end a subscription. */
    fail(error) {
      report(error);
      this.pacer.note(error.retry);
      if (error.refused) {
        this.access.mostTogether = Infinity; // the others may share again
        this.close(error.message);
      } else {
        this.say('away', error.page ? error.message : undefined);
      }
    }

    close(reason) {
      if (this.closed) {
        return;
      }
      this.say('closed', reason);
      this.closed = true;
      clearTimeout(this.gapTimer);
      this.access.release();
      this.pacer.end();
      if (this.task) {
        this.task.end();
      }
      if (this.connection) {
        this.connection.remove(this);
      }
    }

    /** Whether the message was new. One of another subscription's channels moves the cursor as well. */
    take(message) {
      if (this.closed || message.id <= this.cursor) {
        return false;
      }
      this.cursor = message.id;
      if (!this.channels.includes(message.channel)) {
        return false;
      }
      this.call('message', message);
      return true;
    }

    /** Everything up to here was seen: a cursor that stays behind would be told a gap in vain one day. */
    moveTo(cursor) {
      if (!this.closed && cursor > this.cursor) {
        this.cursor = cursor;
      }
    }

    /** A gap: what the daemon still has comes next. It may lie before our cursor, when ids were lost as well. */
    skipTo(cursor) {
      if (this.closed) {
        return;
      }
      this.cursor = cursor;
      if (!this.gapTimer) {
        const [count, last] = recall(this.gaps, GAPS_FORGOTTEN);
        const pause = count ? Math.min(LONGEST_GAP_PAUSE, FIRST_GAP_PAUSE * 2 ** (count - 1)) : 0;
        const left = last + pause - Date.now();
        if (left > 0) {
          this.gapTimer = setTimeout(() => this.tellGap(count), left); // more gaps until then are this one
        } else {
          this.tellGap(count);
        }
      }
    }

    /** The tab remembers the call: a page that reloads itself at each gap must not do so without end. */
    tellGap(count) {
      this.gapTimer = 0;
      remember(this.gaps, count + 1);
      this.call('gap');
    }

    say(state, reason) {
      const said = state + (reason || '');
      if (!this.closed && said !== this.lastState) {
        this.lastState = said;
        this.isOpen = state === 'open';
        this.call('state', ...(reason === undefined ? [state] : [state, reason]));
      }
    }

    call(handler, ...args) {
      if (this.closed || !this.handlers[handler]) {
        return;
      }
      try {
        this.handlers[handler](...args);
      } catch (error) {
        throwLater(error); // the page's mistake, and no reason to end the subscription
      }
    }
  }

  /** Adds a subscription to a connection that has room for it, or to a new one. */
  function join(subscription) {
    let connection = connections.find((one) => one.takes(subscription));
    if (!connection) {
      connection = new Connection(subscription);
      connections.push(connection);
    }
    connection.add(subscription);
  }

  /** One stream, or one long-poll after the other, for several subscriptions. */
  class Connection {
    constructor({ access, streams }) {
      this.access = access;
      this.wantsStreams = streams;
      this.streams = streams && !recall('polls ' + access.url)[0];
      this.subscriptions = new Set();
      /** The subscriptions and channels of the request under way. */
      this.members = [];
      this.names = [];
      this.pacer = new Pacer();
      /** The request under way. */
      this.task = null;
      this.restarts = false;
      this.gathering = 0;
      this.failedStreams = 0;
      /** When the answer or the sign of life that comes next is overdue. */
      this.overdue = 0;
      /** The smallest time in milliseconds from a message's id to its arrival: how clocks differ, and the way. */
      this.usualDelay = Infinity;
      this.nextTest = 0;
    }

    takes({ access, streams, names }) {
      const all = this.allNames(names);
      return (
        this.access === access &&
        this.wantsStreams === streams &&
        this.subscriptions.size < access.mostTogether &&
        all.length <= MOST_CHANNELS &&
        all.join().length <= LONGEST_NAMES
      );
    }

    allNames(more) {
      return [...new Set([].concat(...[...this.subscriptions].map((one) => one.names), more || []))];
    }

    add(subscription) {
      subscription.connection = this;
      this.subscriptions.add(subscription);
      if (this.subscriptions.size === 1) {
        this.run();
      } else {
        this.change();
      }
    }

    remove(subscription) {
      subscription.connection = null;
      this.subscriptions.delete(subscription);
      if (this.subscriptions.size) {
        this.change();
        return;
      }
      connections.splice(connections.indexOf(this), 1);
      this.restart();
    }

    /** Asks anew, in a moment, with the channels that are wanted then. */
    change() {
      this.gathering = this.gathering || setTimeout(() => {
        this.gathering = 0;
        this.restart();
      }, GATHER);
    }

    /** Ends the request under way and asks anew from the cursor, so nothing is lost. */
    restart() {
      this.pacer.end();
      if (this.task) {
        this.restarts = true;
        this.task.end();
      }
    }

    /** The smallest cursor: each subscription takes only what comes after its own. */
    cursor() {
      return Math.min(...this.members.map((one) => one.cursor));
    }

    async run() {
      while (this.subscriptions.size) {
        this.members = [...this.subscriptions];
        this.names = this.allNames();
        this.task = new Task();
        let failure = {};
        try {
          await this.listen();
        } catch (error) {
          failure = error;
        }
        this.task.end();
        this.task = null;
        if (!this.restarts) {
          this.fail(failure);
          await this.pacer.pause();
        }
        this.restarts = false;
      }
    }

    async listen() {
      if (!this.streams) {
        return this.pollOnAndOn();
      }
      if (this.failedStreams) {
        await this.poll(0); // is it the stream alone that fails?
      }
      if (this.failedStreams >= STREAM_TRIES) {
        this.giveUpStreams();
        return this.pollOnAndOn();
      }
      return this.stream();
    }

    giveUpStreams() {
      this.streams = false;
      remember('polls ' + this.access.url, 1);
    }

    /** The request failed or ended. What the daemon refuses to several subscriptions each of them asks by itself. */
    fail(error) {
      const together = error.refused && this.members.length > 1;
      if (together) {
        this.access.mostTogether = Math.ceil(this.members.length / 2);
        report(error);
      }
      this.pacer.note(error.retry);
      this.members.forEach((one) => {
        if (together) {
          this.remove(one);
          one.say('away');
          one.pacer.pause().then(() => one.begin());
        } else {
          one.fail(error);
        }
      });
    }

    /** The daemon answered the request that brings what is published from now on. */
    open() {
      this.members.forEach((one) => {
        one.pacer.failures = 0;
        one.say('open');
      });
    }

    async pollOnAndOn() {
      while (!this.restarts) {
        const began = Date.now();
        const wait = this.members.every((one) => one.isOpen) ? WAIT : FIRST_WAIT;
        const { fresh, gap } = await this.poll(wait);
        if (this.pacer.retry !== null) {
          return;
        }
        this.open();
        if (!gap && (fresh || Date.now() - began >= AT_ONCE)) {
          this.pacer.failures = 0;
        } else if (!this.restarts) {
          await this.pacer.pause(); // whatever answers at once without anything new must not be asked on and on
        }
      }
    }

    /** One long-poll; rejected when there is no answer or none of the daemon's. */
    async poll(wait) {
      const since = this.cursor();
      this.overdue = Date.now() + wait * 1000 + LATE;
      const answer = await this.access.poll(this.names, since, wait, this.task);
      if (answer.gap) {
        this.skipTo(gapEnd(answer), since);
      }
      const fresh = answer.messages.filter((message) => this.take(message)).length > 0;
      this.members.forEach((one) => one.moveTo(answer.cursor));
      this.pacer.note(answer.retry);
      return { fresh, gap: answer.gap };
    }

    /** One stream, from its opening to its end. */
    async stream() {
      const { task } = this;
      const since = this.cursor();
      const began = Date.now();
      /** What the stream has said so far: messages and signs up to this id, or nothing but when to come back. */
      const said = { id: 0, retry: null, fresh: false, gap: false };
      let heartbeat = HEARTBEAT;
      const alive = () => {
        this.overdue = Date.now() + heartbeat + LATE;
        task.limit(2 * heartbeat + PATIENCE); // a connection can die without a word
      };
      const take = {
        message: (message) => {
          said.fresh = this.take(message) || said.fresh;
          said.id = message.id;
          this.judge(message.id, began, said, task);
        },
        gap: (gap) => {
          said.gap = true;
          said.id = said.id || 1;
          this.skipTo(Number(gap.cursor), since);
        },
        cursor: (sign) => {
          said.id = Number(sign.cursor);
          this.members.forEach((one) => one.moveTo(said.id));
          heartbeat = sign.heartbeat * 1000;
          this.pacer.note(sign.retry);
        },
        expired: () => {
          this.access.renew();
          this.restarts = Date.now() - began > AT_ONCE; // with the next token, or to be refused
        },
      };
      this.failedStreams += 1;
      const timer = setTimeout(() => this.test(said, task), LATE);
      try {
        this.overdue = Date.now() + heartbeat + LATE;
        const answer = await this.access.stream(this.names, since, task);
        await readEvents(answer.body, alive, (type, data, retry) => {
          this.failedStreams = 0;
          if (retry !== null) {
            said.retry = retry;
          }
          if (take[type] && data !== '') {
            take[type](JSON.parse(data));
          }
          if (said.id) {
            clearTimeout(timer);
            this.open();
          }
        });
      } finally {
        clearTimeout(timer);
        if ((said.fresh && !said.gap) || Date.now() - began > LASTED) {
          this.pacer.failures = 0;
        }
        if (!said.id && said.retry !== null) {
          // The same time is told to many clients.
          this.pacer.note(Math.max(said.retry, FIRST_PAUSE) * (1 + Math.random() / 2));
        }
      }
    }

    /** A message that is seconds later than others were, though the stream stood when it was published, is a reason
     * to test the stream. */
    judge(id, began, said, task) {
      const now = Date.now();
      this.usualDelay = Math.min(this.usualDelay, now - id / 1000);
      const published = id / 1000 + this.usualDelay;
      if (published > began && now - published > LATE && now > this.nextTest) {
        this.nextTest = now + NEXT_TEST;
        this.test(said, task);
      }
    }

    /** Does something on the way hold the stream back? A poll that does not wait has what a good stream gave before. */
    async test(said, task) {
      try {
        const { messages } = await this.access.poll(this.names, said.id || this.cursor(), 0, new Task());
        await sleep(LATE);
        const last = messages.length ? messages[messages.length - 1].id : 1;
        if (this.task !== task) {
          return; // another request is under way
        }
        if (said.id < last) {
          this.giveUpStreams();
          this.restart();
        } else {
          this.usualDelay = Infinity; // a clock was set, or the page was busy
        }
      } catch (_) {
        // Without an answer nothing is known; the stream has time limits of its own.
      }
    }

    /** Whether the message was new for a subscription. */
    take(message) {
      return this.members.filter((one) => one.take(message)).length > 0;
    }

    /** A gap after `since` that ends at `cursor`. Who has seen more missed nothing, unless ids were lost as well. */
    skipTo(cursor, since) {
      this.members.forEach((one) => {
        if (one.cursor <= cursor || cursor < since) {
          one.skipTo(cursor);
        }
      });
    }
  }

  /** How the daemon is asked: where, with which token and cookies. Subscriptions with the same options share one. */
  class Access {
    constructor({ url = '/ch/', token = '', credentials = false }) {
      this.url = url;
      this.token = token;
      this.credentials = credentials;
      /** The promise of a token, and the last one whose token was good. */
      this.asked = null;
      this.proven = null;
      this.users = 0;
      /** Subscriptions that one connection may have; fewer when the daemon has refused them together. */
      this.mostTogether = Infinity;
    }

    static of(options) {
      const wanted = new Access(options);
      const alike = (one) => ['url', 'token', 'credentials'].every((key) => one[key] === wanted[key]);
      const access = Access.all.find(alike) || wanted;
      if (!access.users) {
        Access.all.push(access);
      }
      access.users += 1;
      return access;
    }

    release() {
      this.users -= 1;
      if (!this.users) {
        Access.all.splice(Access.all.indexOf(this), 1);
      }
    }

    /** Polls for what the channels have after `since`. */
    async poll(names, since, wait, task) {
      const from = since === null ? '' : '&since=' + encodeURIComponent(since);
      const limit = wait * 1000 + PATIENCE;
      try {
        const head = await this.request(names + '?wait=' + wait + from, {}, task, limit);
        task.limit(LONGEST_BODY);
        const answer = await json(head);
        answer.cursor = Number(answer.cursor);
        if (answer.cursor >= 0 && Array.isArray(answer.messages)) {
          return answer;
        }
        throw new Error('the answer is none of the daemon');
      } finally {
        task.limit(0);
      }
    }

    async stream(names, since, task) {
      const answer = await this.request(names + '?since=' + since, { headers: { Accept: EVENTS } }, task, PATIENCE);
      if (!(answer.headers.get('Content-Type') || '').toLowerCase().startsWith(EVENTS)) {
        throw new Error('the answer is no event stream');
      }
      return answer;
    }

    /** Asks once more with a new token when one that was good is refused. */
    async request(path, init, task = new Task(), limit = 0) {
      for (;;) {
        const asked = this.asked || (this.asked = this.ask());
        try {
          const token = await asked;
          task.limit(limit);
          const headers = Object.assign(token ? { Authorization: 'Bearer ' + token } : {}, init.headers);
          const credentials = this.credentials ? 'include' : 'same-origin';
          const { signal } = task.controller;
          const answer = await send(this.url + path, Object.assign({}, init, { headers, credentials, signal }));
          this.proven = asked;
          return answer;
        } catch (error) {
          const isToken = error.status === 401 || error.page;
          if (isToken && this.asked === asked) {
            this.renew();
          }
          if (!isToken || this.proven !== asked || typeof this.token !== 'function') {
            throw error;
          }
        }
      }
    }

    renew() {
      this.asked = null;
    }

    /** The token of the page. What goes wrong in the page's function is an error of the `page`. */
    async ask() {
      try {
        const token = (typeof this.token === 'function' ? await inTime(this.token()) : this.token) || '';
        if (!/^[\w.~+/=-]*$/.test(token)) {
          throw new Error('what the page gave as a token is none');
        }
        return token;
      } catch (error) {
        throw Object.assign(new Error('no token: ' + (error && error.message)), { page: true, cause: error });
      }
    }
  }

  Access.all = [];

  const EVENTS = 'text/event-stream';

  /** A request under way. It is ended when it takes longer than `limit` said last. */
  class Task {
    constructor() {
      this.controller = new AbortController();
      this.timer = 0;
    }

    limit(time) {
      clearTimeout(this.timer);
      this.timer = time ? setTimeout(() => this.controller.abort(), time) : 0;
    }

    end() {
      this.limit(0);
      this.controller.abort();
    }
  }

  /** Pauses between attempts: longer from failure to failure, and random, so that not all clients come at once. */
  class Pacer {
    constructor() {
      this.failures = 0;
      /** The daemon asks to come back after so many milliseconds. */
      this.retry = null;
      this.end = () => {};
    }

    note(retry) {
      if (typeof retry === 'number' && retry >= 0) {
        this.retry = Math.min(LONGEST_RETRY, retry);
      }
    }

    next() {
      if (this.retry !== null) {
        const { retry } = this;
        this.retry = null;
        return Math.max(retry, SHORTEST_RETRY);
      }
      const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.failures);
      if (!isOffline()) {
        this.failures += 1; // without a network nothing is said about the daemon
      }
      return 100 + Math.random() * longest;
    }

    pause() {
      return new Promise((resolve) => {
        const timer = setTimeout(() => this.end(), this.next());
        pausing.add(this);
        this.end = () => {
          clearTimeout(timer);
          pausing.delete(this);
          resolve();
        };
      });
    }
  }

  /** The browser says that the network or the page is back. Not all pages ask at once. */
  function wake(isLost) {
    setTimeout(() => {
      pausing.forEach((pacer) => {
        pacer.failures = 0;
        pacer.end();
      });
      connections.forEach((connection) => {
        if (isLost || Date.now() > connection.overdue) {
          connection.restart();
        }
      });
    }, Math.random() * 1000);
  }

  /** In a page; a worker has no document, and other programs have none of these. */
  function watchThePage() {
    let hidden = Date.now();
    addEventListener('online', () => wake(true));
    addEventListener('pageshow', (event) => event.persisted && wake(true));
    if (typeof document === 'object') {
      document.addEventListener('visibilitychange', () => {
        if (document.visibilityState === 'hidden') {
          hidden = Date.now();
        } else if (Date.now() - hidden > HEARTBEAT) {
          wake(false);
        }
      });
    }
  }

  function isOffline() {
    return typeof navigator === 'object' && navigator.onLine === false;
  }

  function canStream() {
    return typeof ReadableStream === 'function' && typeof TextDecoder === 'function';
  }

  /** Reads an event stream (HTML standard, "Server-sent events"). `alive` is called for all that comes, and
   * `take(type, data, retry)` for each event. */
  async function readEvents(body, alive, take) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    let event = { event: 'message', data: '', retry: null };
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      alive();
      const text = decoder.decode(value, { stream: true });
      rest += text;
      if (!text.includes('\n')) {
        continue; // a long line is not searched again and again
      }
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const [field, content] = fieldOf(line);
        if (field === 'retry') {
          event.retry = Number(content);
        } else if (field) {
          event[field] = content; // the daemon's data is one line
        } else if (!line.trim()) {
          take(event.event, event.data, event.retry);
          event = { event: 'message', data: '', retry: null };
        }
      }
    }
  }

  function fieldOf(line) {
    const colon = line.indexOf(':');
    const start = line[colon + 1] === ' ' ? colon + 2 : colon + 1;
    return [line.slice(0, Math.max(0, colon)), line.slice(start, line.endsWith('\r') ? -1 : undefined)];
  }

  /** Where what is missing ends: before the first message that follows, or at the answer's cursor. */
  function gapEnd({ messages, cursor }) {
    return messages.length ? messages[0].id - 1 : cursor;
  }

  /** An answer of the daemon. An error is `refused` when the daemon itself said that asking again is of no use. */
  async function send(url, init) {
    const answer = await fetch(url, Object.assign({ cache: 'no-store' }, init));
    if (answer.ok) {
      return answer;
    }
    const { status } = answer;
    const { error: code, message } = (await json(answer).catch(() => null)) || {};
    const passing = status >= 500 || status === 408 || status === 429;
    const retry = Number(answer.headers.get('Retry-After')) * 1000 || null;
    const error = new Error(message || 'HTTP status ' + status);
    throw Object.assign(error, { status, code, retry, refused: Boolean(code) && !passing });
  }

  async function json(answer) {
    const body = await answer.json(); // rejected for a proxy's page
    if (body === null || typeof body !== 'object') {
      throw new Error('the answer is none of the daemon');
    }
    return body;
  }

  /** Rejected when the promise takes too long. */
  function inTime(promise) {
    const late = sleep(PATIENCE).then(() => {
      throw new Error('the token function took longer than ' + PATIENCE / 1000 + ' s');
    });
    return Promise.race([promise, late]);
  }

  function sleep(time) {
    return new Promise((resolve) => setTimeout(resolve, time));
  }

  /** Errors of the page's own functions are reported as uncaught, once. */
  function report(error) {
    if (error.page && !error.reported) {
      error.reported = true;
      throwLater(error.cause || error);
    }
  }

  function throwLater(error) {
    setTimeout(() => {
      throw error;
    });
  }

  /** What the tab remembers over a reload: a number, and when it was set. Where storage is forbidden, the page does. */
  const memory = {};

  function recall(key, longest = Infinity) {
    let known = memory[key];
    try {
      known = JSON.parse(sessionStorage.getItem('comet ' + key)) || known;
    } catch (_) {
      // No storage.
    }
    const [value, time] = known || [0, 0];
    return Date.now() - time < longest ? [value, time] : [0, 0];
  }

  function remember(key, value) {
    memory[key] = [value, Date.now()];
    try {
      sessionStorage.setItem('comet ' + key, JSON.stringify(memory[key]));
    } catch (_) {
      // No storage, or it is full.
    }
  }

  if (typeof addEventListener === 'function') {
    watchThePage();
  }
  (typeof self === 'object' ? self : globalThis).Comet = { subscribe, publish };
})();
