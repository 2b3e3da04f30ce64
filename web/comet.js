/**
 * comet.js: brings messages that are published on a channel to the browser, usually within a millisecond.
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
 * begins with a poll that does not wait. The answer has the cursor, or the reason of a refusal. Then the
 * subscription joins a connection: one stream (Server-Sent Events) for all subscriptions of the page that use the
 * same URL, token, credentials and transport, or one long-poll after the other where streams do not work. When the
 * connection ends, the next one begins at the cursor. So no message is lost or delivered twice. If the daemon no
 * longer has the missed messages, `gap` is called.
 *
 * Over HTTP/1.1 a browser opens six connections to a host at most, for all its tabs together. Each tab holds one.
 *
 * This is a plain script that defines `Comet`. `import './comet.js'` defines it as well. It has no dependencies.
 */
(function () {
  'use strict';

  /** Seconds that a long-poll may wait for a message. Shorter than the time-out of usual proxies. */
  const WAIT = 25;
  /**
   * Seconds that the first long-poll waits. A short time, so that the page soon knows that waiting polls are answered.
   */
  const FIRST_WAIT = 1;
  /** Milliseconds that an answer may take beyond its wait, and that a stream may be silent beyond two heartbeats. */
  const PATIENCE = 10000;
  /** Milliseconds for a poll's body after its head. Enough for 7.6 MiB to a phone. */
  const LONGEST_BODY = 120000;
  /** A poll that is answered within this time, in milliseconds, did not wait. */
  const AT_ONCE = 800;
  /** A stream that lasted longer than this, in milliseconds, does not count as a failure. */
  const LASTED = 5000;
  /** Milliseconds between two heartbeats of a stream, until the daemon tells the real interval. */
  const HEARTBEAT = 15000;
  /** After this number of failed streams in a row, while polls were answered, the page polls. */
  const STREAM_TRIES = 3;
  /** A stream that delivers a message this many milliseconds later than a poll would is held back by a proxy. */
  const LATE = 2000;
  /** Milliseconds between two tests for a stream that is held back. */
  const NEXT_TEST = 10000;
  /** Bounds of the back-off in milliseconds. */
  const FIRST_PAUSE = 1000;
  const LONGEST_PAUSE = 15000;
  /** Bounds in milliseconds of the time after which the daemon asks a client to come back. */
  const SHORTEST_RETRY = 500;
  const LONGEST_RETRY = 300000;
  /**
   * Bounds in milliseconds of the pause between two calls of `gap`, and the time without a gap that resets the pause.
   */
  const FIRST_GAP_PAUSE = 1000;
  const LONGEST_GAP_PAUSE = 60000;
  const GAPS_FORGOTTEN = 300000;
  /** Longest random delay in milliseconds before a page asks for the members again, so that pages do not ask all at once. */
  const MEMBERS_SPREAD = 2000;
  /** When only the number of members has come, the page asks for the list if there are fewer than this. */
  const LISTED_MEMBERS = 900;
  /** Milliseconds in which several changes of subscriptions are gathered into one new request. */
  const GATHER = 10;
  /** Bounds of one connection's request: the number of channels, and bytes of their names in the URL. */
  const MOST_CHANNELS = 100;
  const LONGEST_NAMES = 2000;

  /**
   * One message.
   * @typedef {Object} Message
   * @property {string} channel  the first of the subscription's channels to which the message was published
   * @property {string[]} [channels]  all of them, if there are several
   * @property {number} id  microseconds since 1970, strictly increasing over all channels
   * @property {string} name  the message's label, usually empty
   * @property {Object<string, string>} [attributes]  the message's attributes, if it has some
   * @property {string} data  text, or base64 if `encoding` is `'base64'`
   * @property {string} [encoding]  `'base64'` for data that is not UTF-8
   */

  /**
   * A user on a channel.
   * @typedef {Object} Member
   * @property {string} id  the subject of the user's token, or the id that the user's page has chosen
   * @property {*} [info]  what the user's token says about the user. Show it as carefully as data of a message
   * @property {number} [connections]  in a list of members: the number of the user's connections
   */

  /**
   * A change of the members of a channel. One of `members`, `joined` and `left` is set. With many members, about 1,000,
   * only `count` is set.
   * @typedef {Object} Presence
   * @property {string} channel
   * @property {Member[]} [members]  all members, in place of what the page knows
   * @property {Member} [joined]  a member that the page may know already
   * @property {Member} [left]  a member that the page may not know
   * @property {number} count  the number of members now
   */

  /**
   * The functions of a subscriber. Each is optional.
   * @typedef {Object} Handlers
   * @property {function(Message): void} [message]  called for each message, once, in the order of ids
   * @property {function(): void} [gap]  called when messages were missed and the daemon no longer has them: load the
   *   state again. Several gaps within a short time become one call, after a pause. The pause grows to one minute, and
   *   a reload of the page does not reset it
   * @property {function(Presence): void} [presence]  with the option `presence`: called with the members of each channel
   *   at first, and then with each change
   * @property {function(string, string=): void} [state]  called with `'connecting'` at first; with `'open'` when the
   *   daemon has answered the stream or waiting poll that brings new messages; with `'away'` when the daemon cannot be
   *   reached, or when the page's `token` function failed (the second argument is the reason), and the request will be
   *   repeated; with `'closed'` after `close()`, or when the daemon refused (the second argument is the reason)
   */

  /**
   * Subscribes to channels until it is closed.
   * @param {string|string[]} channels  one or more names
   * @param {Handlers} handlers
   * @param {Object} [options]
   * @param {string} [options.url]  the URL of the daemon's channels, with the last slash; `'/ch/'` by default
   * @param {number|string} [options.since]  begin after this id, with `0` for all kept messages, or after a time such
   *   as `'2026-01-31T12:00:00Z'`. Without it, only new messages arrive
   * @param {string|function(): (string|Promise<string>)} [options.token]  a token, for channels that need one. A
   *   function is called at the beginning, and again when the daemon says that the last token has expired. It may take
   *   10 s. It may set the cookie `__Host-comet` and return `''`. Subscriptions with the same function share a connection
   * @param {boolean} [options.credentials]  send cookies to a daemon of another origin. That daemon has to list this
   *   page's origin by name
   * @param {boolean} [options.presence]  be a member of the channels, as the subject of the token, and hear of the other
   *   members. Without a subject the page only hears of them
   * @param {string} [options.member]  with `presence`: the id of the member, for channels whose rule lets clients choose it
   * @param {string} [options.transport]  `'sse'` (falls back to long-poll automatically) or `'longpoll'`
   * @returns {{close: function(): void, cursor: ?number}}  `cursor` can be the `since` of a later subscription. It is
   *   `null` until the daemon has told a cursor
   */
  function subscribe(channels, handlers, options) {
    const subscription = new Subscription([].concat(channels).map(String), handlers || {}, options || {});
    Promise.resolve().then(() => subscription.begin()); // no handler runs before the caller has the returned object
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
   * Publishes one message, if the daemon allows browsers to publish.
   * @param {string|string[]} channel  one or more names: one message for all of them
   * @param {string|Blob|ArrayBuffer} data
   * @param {Object} [options]
   * @param {string} [options.name]  label of the message
   * @param {string} [options.key]  idempotency key. A second message with the same key is not published again, so a
   *   publish without an answer can be repeated
   * @param {string} [options.url]  as for `subscribe`, like `token` and `credentials`
   * @param {string|function(): (string|Promise<string>)} [options.token]
   * @param {boolean} [options.credentials]
   * @returns {Promise<number>}  the message's id. Rejected with an `Error` that has the daemon's `message`, `code` and
   *   `status`
   */
  async function publish(channel, data, options) {
    const { name = '', key = '' } = options || {};
    const query = name && '?name=' + encodeURIComponent(name);
    const headers = key ? { 'Idempotency-Key': key } : {};
    const access = new Access(options || {});
    const answer = await access.request(encodeURIComponent(channel) + query, { method: 'POST', body: data, headers });
    return (await json(answer)).id;
  }

  /** Connections of subscriptions that have a cursor. Subscriptions of the page share connections. */
  const connections = [];
  /** Back-offs that wait before the next attempt. */
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
      /** The key of this subscription's gaps in the tab's memory. */
      this.gaps = 'gaps ' + this.access.url + this.names;
      this.gapTimer = 0;
      /** The channels whose members are asked for, with the cursor of the last list. */
      this.listed = new Map(this.access.presence ? channels.map((channel) => [channel, 0]) : []);
      /** The timers of requests for members, by channel. */
      this.asking = new Map();
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
            this.listAll(0);
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

    /** Handles a failed request. Only a refusal of the daemon and `close()` end a subscription. */
    fail(error) {
      report(error);
      this.pacer.note(error.retry);
      if (error.refused) {
        this.access.mostTogether = Infinity; // the other subscriptions may share a connection again
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
      this.asking.forEach((timer) => clearTimeout(timer));
      this.access.release();
      this.pacer.end();
      if (this.task) {
        this.task.end();
      }
      if (this.connection) {
        this.connection.remove(this);
      }
    }

    /**
     * Delivers a message and returns whether it was new. A message of another subscription's channel only moves the
     * cursor.
     */
    take(message) {
      if (this.closed || message.id <= this.cursor) {
        return false;
      }
      this.cursor = message.id;
      if (message.presence) {
        return this.takePresence(message);
      }
      const all = message.channels || [message.channel];
      const own = all.filter((channel) => this.channels.includes(channel));
      if (own.length === 0) {
        return false;
      }
      // The connection may have subscribed to further channels of the message, for other subscriptions of the page.
      this.call('message', all.length > 1 ? { ...message, channel: own[0], channels: own.length > 1 ? own : undefined } : message);
      return true;
    }

    /** Delivers a change of the members. A change that a list contained already is left out. */
    takePresence({ presence, id }) {
      const { channel, count } = presence;
      if (!this.listed.has(channel) || id <= this.listed.get(channel)) {
        return false;
      }
      if (presence.joined || presence.left || count >= LISTED_MEMBERS) {
        this.call('presence', presence);
      } else {
        this.list(channel, Math.random() * MEMBERS_SPREAD);
      }
      return true;
    }

    listAll(spread) {
      this.listed.forEach((_, channel) => this.list(channel, Math.random() * spread));
    }

    /** Asks for the members of a channel after `delay` milliseconds, until there is an answer or a refusal. */
    list(channel, delay) {
      clearTimeout(this.asking.get(channel));
      const ask = async () => {
        try {
          const { members, count, cursor, next } = await this.access.members(channel);
          if (this.closed || cursor < this.listed.get(channel)) {
            return;
          }
          this.listed.set(channel, cursor);
          this.call('presence', next === undefined ? { channel, members, count } : { channel, count });
        } catch (error) {
          if (!this.closed && !error.refused) {
            this.list(channel, FIRST_PAUSE + Math.random() * LONGEST_PAUSE);
          }
        }
      };
      this.asking.set(channel, setTimeout(ask, delay));
    }

    /**
     * Moves the cursor forward. An old cursor could fall out of the history and get a gap although nothing was missed.
     */
    moveTo(cursor) {
      if (!this.closed && cursor > this.cursor) {
        this.cursor = cursor;
      }
    }

    /**
     * Handles a gap. The messages that the daemon still has follow. They may lie before the cursor, if the daemon lost
     * ids.
     */
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
          this.gapTimer = setTimeout(() => this.tellGap(count), left); // further gaps until then share this call
        } else {
          this.tellGap(count);
        }
      }
    }

    /** Calls `gap`. The tab counts the calls, so that a page that reloads at each gap does not reload without end. */
    tellGap(count) {
      this.gapTimer = 0;
      remember(this.gaps, count + 1);
      this.listAll(MEMBERS_SPREAD);
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
        throwLater(error); // an error of the page does not end the subscription
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
      /** Time at which the next answer or heartbeat is overdue. */
      this.overdue = 0;
      /**
       * The smallest time in milliseconds from a message's id to its arrival: clock difference and network delay
       * together.
       */
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

    /** Sends a new request, in a moment, with the channels that are wanted then. */
    change() {
      this.gathering = this.gathering || setTimeout(() => {
        this.gathering = 0;
        this.restart();
      }, GATHER);
    }

    /** Ends the request under way and sends a new one from the cursor, so that nothing is lost. */
    restart() {
      this.pacer.end();
      if (this.task) {
        this.restarts = true;
        this.task.end();
      }
    }

    /** The smallest cursor of all members. Each subscription takes only messages after its own cursor. */
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
        await this.poll(0); // tests whether only the stream fails
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

    /**
     * Handles a failed or ended request. If the daemon refused several subscriptions together, each then asks
     * separately.
     */
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
          await this.pacer.pause(); // an answer at once without new messages must not cause a busy loop
        }
      }
    }

    /** Sends one long-poll. Rejected if there is no answer, or if the answer is not the daemon's. */
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

    /** Reads one stream, from its opening to its end. */
    async stream() {
      const { task } = this;
      const since = this.cursor();
      const began = Date.now();
      /**
       * What the stream has delivered: the last id, the retry time, whether a message was new, and whether there was a
       * gap.
       */
      const said = { id: 0, retry: null, fresh: false, gap: false };
      let heartbeat = HEARTBEAT;
      const alive = () => {
        this.overdue = Date.now() + heartbeat + LATE;
        task.limit(2 * heartbeat + PATIENCE); // a connection can be lost without an error
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
          this.restarts = Date.now() - began > AT_ONCE; // repeat at once: with the next token, or to get the refusal
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
          // Many clients get the same time, so a random part is added.
          this.pacer.note(Math.max(said.retry, FIRST_PAUSE) * (1 + Math.random() / 2));
        }
      }
    }

    /**
     * Tests the stream if a message is seconds later than usual, although the stream was open when the message was
     * published.
     */
    judge(id, began, said, task) {
      const now = Date.now();
      this.usualDelay = Math.min(this.usualDelay, now - id / 1000);
      const published = id / 1000 + this.usualDelay;
      if (published > began && now - published > LATE && now > this.nextTest) {
        this.nextTest = now + NEXT_TEST;
        this.test(said, task);
      }
    }

    /**
     * Tests whether a proxy holds the stream back: a poll that does not wait gets messages that the stream should have
     * brought.
     */
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
          this.usualDelay = Infinity; // a clock was changed, or the page was busy
        }
      } catch (_) {
        // Without an answer the test says nothing. The stream has its own time limits.
      }
    }

    /** Delivers a message and returns whether it was new for at least one subscription. */
    take(message) {
      return this.members.filter((one) => one.take(message)).length > 0;
    }

    /**
     * Handles a gap from `since` to `cursor`. A subscription that is further missed nothing, unless the daemon lost
     * ids.
     */
    skipTo(cursor, since) {
      this.members.forEach((one) => {
        if (one.cursor <= cursor || cursor < since) {
          one.skipTo(cursor);
        }
      });
    }
  }

  /** The URL, token and credentials of requests. Subscriptions with the same options share one object. */
  class Access {
    constructor({ url = '/ch/', token = '', credentials = false, presence = false, member = '' }) {
      this.url = url;
      this.token = token;
      this.credentials = credentials;
      this.presence = Boolean(presence);
      this.member = String(member);
      /** The end of the query of each poll and stream. */
      this.more = this.presence ? '&presence=1' + (this.member && '&member=' + encodeURIComponent(this.member)) : '';
      /** The promise of the current token, and the last promise whose token was accepted. */
      this.asked = null;
      this.proven = null;
      this.users = 0;
      /** Maximum number of subscriptions on one connection. It is lowered when the daemon refuses several together. */
      this.mostTogether = Infinity;
    }

    static of(options) {
      const wanted = new Access(options);
      const alike = (one) => ['url', 'token', 'credentials', 'presence', 'member'].every((key) => one[key] === wanted[key]);
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

    /** Polls for the messages of the channels after `since`. */
    async poll(names, since, wait, task) {
      const from = since === null ? '' : '&since=' + encodeURIComponent(since);
      const limit = wait * 1000 + PATIENCE;
      try {
        const head = await this.request(names + '?wait=' + wait + from + this.more, {}, task, limit);
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
      const path = names + '?since=' + since + this.more;
      const answer = await this.request(path, { headers: { Accept: EVENTS } }, task, PATIENCE);
      if (!(answer.headers.get('Content-Type') || '').toLowerCase().startsWith(EVENTS)) {
        throw new Error('the answer is no event stream');
      }
      return answer;
    }

    /** Asks for the members of a channel. */
    async members(channel) {
      const task = new Task();
      try {
        const url = this.url.replace(/ch\/$/, 'presence/');
        const head = await this.request(encodeURIComponent(channel), {}, task, PATIENCE, url);
        const answer = await json(head);
        answer.cursor = Number(answer.cursor);
        if (answer.cursor >= 0 && Array.isArray(answer.members)) {
          return answer;
        }
        throw new Error('the answer is none of the daemon');
      } finally {
        task.limit(0);
      }
    }

    /** Sends a request. If a token that was accepted before is refused, repeats the request once with a new token. */
    async request(path, init, task = new Task(), limit = 0, url = this.url) {
      for (;;) {
        const asked = this.asked || (this.asked = this.ask());
        try {
          const token = await asked;
          task.limit(limit);
          const headers = Object.assign(token ? { Authorization: 'Bearer ' + token } : {}, init.headers);
          const credentials = this.credentials ? 'include' : 'same-origin';
          const { signal } = task.controller;
          const answer = await send(url + path, Object.assign({}, init, { headers, credentials, signal }));
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

    /** Gets the page's token. An error of the page's function is marked with `page`. */
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

  /** A request under way. It is aborted when it takes longer than the last `limit`. */
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

  /**
   * Pauses between attempts. They grow from failure to failure and are random, so that clients do not come all at once.
   */
  class Pacer {
    constructor() {
      this.failures = 0;
      /** Milliseconds after which the daemon asks to come back, or null. */
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
        this.failures += 1; // a failure without a network says nothing about the daemon
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

  /**
   * Called when the browser reports that the network or the page is back. The delay is random to spread the pages'
   * requests.
   */
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

  /** Listens to the events of a page. A worker has no document, and other programs have no such events. */
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

  /**
   * Reads an event stream (HTML standard, "Server-sent events"). Calls `alive` for each piece that arrives, and
   * `take(type, data, retry)` for each event.
   */
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
        continue; // an incomplete line is not split again for each piece
      }
      const lines = rest.split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const [field, content] = fieldOf(line);
        if (field === 'retry') {
          event.retry = Number(content);
        } else if (field) {
          event[field] = content; // the daemon's data always has one line
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

  /** The cursor where a gap ends: just before the first message that follows, or at the answer's cursor. */
  function gapEnd({ messages, cursor }) {
    return messages.length ? messages[0].id - 1 : cursor;
  }

  /**
   * Fetches an answer of the daemon. An error is `refused` when the daemon itself says that repeating the request is of
   * no use.
   */
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
    const body = await answer.json(); // rejected for an HTML page of a proxy
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

  /** Reports an error of the page's own functions as an uncaught error, once. */
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

  /**
   * Values that the tab keeps over a reload: a number and the time when it was set. Without storage, the page keeps
   * them.
   */
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
