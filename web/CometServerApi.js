/**
 * CometServerApi.js: the functions of comet-server.ru's script of this name that pages use, for pages that were made for
 * comet-server.ru. This is another script than the original. docs/compat/comet_server.md says what differs.
 *
 *   CometServer().subscription('chat', function (event) { console.log(event.data, event.server_info); });
 *   CometServer().start({ dev_id: 15 });
 *
 * `CometServer()` and `cometApi` are the same object. Without the option `node`, the page connects to the host from which it
 * has loaded this script.
 */
(function () {
  'use strict';

  /** Bounds in milliseconds of the pause before the next connection. */
  const FIRST_PAUSE = 500;
  const LONGEST_PAUSE = 30000;
  /** Milliseconds in which several changes of subscriptions become one command. */
  const GATHER = 50;
  /** Number of commands that wait for a connection. Further commands are dropped. */
  const MOST_WAITING = 1000;
  /** Number of messages by which a repeated one is recognised. */
  const MOST_KNOWN = 1000;
  /** The version that the daemon is told. It decides the form of the messages. */
  const VERSION = '4.09';
  const UUID_KEY = 'comet_server_uuid';

  const script = document.currentScript;

  let options = { dev_id: 0, user_id: 0, user_key: '' };
  let socket = null;
  let isOpen = false;
  let isStarted = false;
  let timer = 0;
  let failures = 0;
  let authorized;
  let master = !(navigator.locks && navigator.locks.request);
  let uuid = '';
  let lastId = 0;
  let listTimer = 0;
  /** The list of pipes that the daemon has. */
  let sentList = '';
  /** Commands for the daemon, until there is a connection. */
  let waiting = [];
  /** The subscriptions: `{id, name, callback}`. The name of a subscription to everything is `''`. */
  let subscriptions = [];
  /** Callbacks for the answers to questions, by marker. */
  const questions = new Map();
  /** Callbacks for a change of the authorisation: `[whenAuthorised, whenNot]`. */
  const onAuth = [[], []];
  const known = new Set();

  /** The address of the next connection's node, without the scheme and the path of the WebSocket. */
  function address() {
    const nodes = [].concat(options.node || options.nodes || []);
    if (nodes.length > 0) {
      const node = nodes[failures % nodes.length].replace(/^\w+:\/\//, '').replace(/\/$/, '');
      return { node, secure: location.protocol === 'https:' };
    }
    const base = new URL('.', script && script.src ? script.src : location.href);
    return { node: (base.host + base.pathname).replace(/\/$/, ''), secure: base.protocol === 'https:' };
  }

  function url() {
    const { node, secure } = address();
    const scheme = (options.wss === undefined ? secure : options.wss) ? 'wss' : 'ws';
    const { user_key: key, user_id: id, dev_id: site } = options;
    return `${scheme}://${node}/ws/sesion=${encodeURI(key)}&myid=${id}&devid=${site}&v=${VERSION}&uuid=${api.getUUID()}&api=js`;
  }

  function connect() {
    clearTimeout(timer);
    const mine = new WebSocket(url());
    socket = mine;
    mine.onopen = () => {
      if (mine === socket) {
        isOpen = true;
        sentList = '';
        sendList();
        waiting.splice(0).forEach((command) => mine.send(command));
      }
    };
    mine.onmessage = (event) => {
      if (mine === socket) {
        failures = 0;
        receive(event.data);
      }
    };
    mine.onclose = () => {
      if (mine === socket) {
        isOpen = false;
        socket = null;
        pause();
      }
    };
  }

  /** Connects again after a pause. The pauses differ, so that the pages do not come back all at once. */
  function pause() {
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failures);
    failures += 1;
    timer = setTimeout(connect, longest * (0.5 + Math.random() / 2));
  }

  function disconnect() {
    clearTimeout(timer);
    const old = socket;
    socket = null;
    isOpen = false;
    if (old) {
      old.close();
    }
  }

  function send(...lines) {
    const command = lines.join('\n');
    if (isOpen) {
      socket.send(command);
    } else if (waiting.length < MOST_WAITING) {
      waiting.push(command);
    }
    return true;
  }

  /** The pipe of a subscription, or `''` if the daemon need not be asked for it. */
  function pipeOf(name) {
    const pipe = name.split('.')[0];
    return pipe === 'msg' || pipe.startsWith('_') ? '' : pipe;
  }

  function sendList() {
    clearTimeout(listTimer);
    listTimer = 0;
    const pipes = new Set(subscriptions.map((one) => pipeOf(one.name)));
    pipes.delete('');
    const list = Array.from(pipes).sort().join('\n');
    if (isOpen && list !== sentList) {
      sentList = list;
      socket.send('subscription\n' + list);
    }
  }

  function changeList() {
    if (!listTimer) {
      listTimer = setTimeout(sendList, GATHER);
    }
  }

  function parse(text) {
    try {
      return JSON.parse(text);
    } catch (error) {
      return text;
    }
  }

  function receive(text) {
    const message = parse(text);
    if (typeof message !== 'object' || message === null || isRepeated(message.uuid)) {
      return;
    }
    const { pipe = 'msg', event = '' } = message;
    if (pipe === 'sys' && event === 'serverInfo') {
      setAuthorized(message.authorized === true, message.data);
    }
    const result = {
      data: typeof message.data === 'string' ? parse(message.data) : message.data,
      server_info: {
        user_id: message.user_id || 0,
        pipe,
        event,
        history: message.history === true,
        marker: message.marker,
        uuid: message.uuid,
      },
    };
    const asked = questions.get(message.marker);
    if (asked) {
      questions.delete(message.marker);
      call(asked, result);
    }
    const names = ['', pipe, pipe + '.' + event];
    subscriptions.filter((one) => names.includes(one.name)).forEach((one) => call(one.callback, result));
  }

  /** Whether a message with this identifier has come before. Private messages can come twice after a crash of the daemon. */
  function isRepeated(id) {
    if (id === undefined || known.has(id)) {
      return id !== undefined;
    }
    known.add(id);
    if (known.size > MOST_KNOWN) {
      known.delete(known.values().next().value);
    }
    return false;
  }

  function setAuthorized(is, key) {
    if (is && key) {
      options.user_key = key; // it stays good when a token has expired
    }
    if (authorized !== is) {
      authorized = is;
      onAuth[is ? 0 : 1].forEach((callback) => call(callback));
    }
  }

  /** An error of the page does not keep other callbacks from being called. */
  function call(callback, ...args) {
    try {
      callback(...args);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  }

  function ask(command, before, after, callback) {
    const marker = String(Math.floor(Math.random() * 1e9)) + (lastId += 1);
    questions.set(marker, callback || (() => {}));
    return send(...[command, before, marker, after].filter((line) => line !== undefined));
  }

  function when(list, callback) {
    onAuth[list].push(callback);
    if (authorized === (list === 0)) {
      call(callback);
    }
  }

  const api = {
    /** Connects. The options are `dev_id`, `user_id`, `user_key`, `node` (a host or a list), and `wss`. */
    start(given) {
      options = { ...options, ...given };
      isStarted = true;
      if (!socket) {
        connect();
      }
    },

    /** Connects anew, with changed options. */
    restart(given) {
      disconnect();
      failures = 0;
      api.start(given);
    },

    stop() {
      isStarted = false;
      disconnect();
    },

    /**
     * Calls a function for each message of a pipe (`'pipe'`), of a pipe and an event (`'pipe.event'`), for private messages
     * (`'msg'`), for reports about own messages (`'#pipe'`), or for all messages (the function alone). Returns an id for
     * `unsubscription`.
     */
    subscription(name, callback) {
      if (typeof name === 'function') {
        return api.subscription('', name);
      }
      const id = 'subscription' + (lastId += 1);
      const full = name.replace(/^#/, '_answer_to_').replace(/^answer_to_/, '_answer_to_');
      subscriptions.push({ id, name: full, callback });
      changeList();
      return id;
    },

    /** Ends a subscription by its id, or all subscriptions with a name. */
    unsubscription(id) {
      subscriptions = subscriptions.filter((one) => one.id !== id && one.name !== id);
      changeList();
      return true;
    },

    unsubscriptionAll() {
      subscriptions = [];
      changeList();
      return true;
    },

    /** Publishes to a pipe whose name starts with `web_` or `webauth_`. With two arguments, the first is `'pipe.event'`. */
    web_pipe_send(pipe, event, data) {
      if (data === undefined) {
        const [name, ...rest] = pipe.split('.');
        return api.web_pipe_send(name, rest.join('.') || 'undefined', event);
      }
      if (!/^(@?web_|webauth_)/.test(pipe)) {
        return false;
      }
      return send('web_pipe2', pipe, event, '*', JSON.stringify(data));
    },

    /** Asks for the saved messages of a pipe. They come as messages with `history: true`. */
    get_pipe_log(pipe) {
      return ask('pipe_log', pipe, '');
    },

    /** Calls the function with a message whose `data.user_in_pipe` is the number of subscribers. */
    count_users_in_pipe(pipe, callback) {
      return ask('pipe_count', pipe, '', callback);
    },

    /** Calls the function with a message whose `data` is a list of `{user_id, uuid}`. */
    getTrackPipeUsers(pipe, callback) {
      return ask('track_pipe_users', pipe, undefined, callback);
    },

    /** Calls the function with a message whose `data.user_data` is the text that is stored for a user. */
    getUserData(user, callback) {
      return ask('user_data', undefined, user, callback);
    },

    onAuthSuccess: (callback) => when(0, callback),
    onAuthFalill: (callback) => when(1, callback),
    isAuthorized: () => authorized,

    /** Whether this tab is the one of the page's tabs that plays sounds and the like. */
    isMaster: () => master,
    isStart: () => isStarted,
    getUserId: () => options.user_id,
    getUserKey: () => options.user_key,
    getDevId: () => options.dev_id,

    /** The identifier of this browser. */
    getUUID() {
      if (!uuid) {
        const digits = crypto.getRandomValues(new Uint8Array(16));
        uuid = Array.from(digits, (digit) => digit.toString(16).padStart(2, '0')).join('');
        try {
          uuid = localStorage.getItem(UUID_KEY) || uuid;
          localStorage.setItem(UUID_KEY, uuid);
        } catch (error) {
          // Without storage, each page has an identifier of its own.
        }
      }
      return uuid;
    },
  };
  api.Subscription = api.subscription;

  if (!master) {
    navigator.locks.request(UUID_KEY, () => {
      master = true;
      return new Promise(() => {}); // until the tab is closed
    });
  }

  window.cometApi = api;
  window.CometServer = () => api;
})();
