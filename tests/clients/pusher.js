// pusher-js, Laravel Echo and the Node library of Pusher against the daemon. Arguments: the port of the daemon, and the name of a scenario.
// Each scenario prints what the application or the page got, one JSON value a line.
'use strict';
const http = require('http');
const Pusher = require('pusher-js');
const PusherServer = require('pusher');

const [port, scenario] = process.argv.slice(2);
const address = { host: '127.0.0.1', port, useTLS: false, cluster: '' };
const encryptionMasterKeyBase64 = Buffer.alloc(32, 7).toString('base64');
const server = new PusherServer({ appId: '1', key: 'app-key', secret: 'app-secret', encryptionMasterKeyBase64, ...address });
const show = (...values) => console.log(JSON.stringify(values.length === 1 ? values[0] : values));

/** The application's endpoint that signs what pages may do. The page says who its user is. */
function authorize(request, response) {
  let body = '';
  request.on('data', (part) => (body += part));
  request.on('end', () => {
    const fields = new URLSearchParams(body);
    const user = request.headers['x-user'];
    const [socket, channel] = [fields.get('socket_id'), fields.get('channel_name')];
    const signer = channel === 'private-forged' ? new PusherServer({ appId: '1', key: 'app-key', secret: 'wrong', ...address }) : server;
    const answer = channel === null ? server.authenticateUser(socket, { id: user, name: `user ${user}` })
      : channel.startsWith('presence-') ? server.authorizeChannel(socket, channel, { user_id: user, user_info: { name: `user ${user}` } })
      : signer.authorizeChannel(socket, channel);
    response.end(JSON.stringify(answer));
  });
}

let application;

/** A page of this user. */
function page(user = '7', options = {}) {
  const endpoint = `http://127.0.0.1:${application.address().port}/auth`;
  return new Pusher(options.key || 'app-key', {
    cluster: '', wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'],
    channelAuthorization: { endpoint, headers: { 'x-user': user } },
    userAuthentication: { endpoint, headers: { 'x-user': user } },
    ...options,
  });
}

/** The next event of this name: its data and its metadata. */
const next = (emitter, event) => new Promise((done) => {
  const handler = (data, metadata) => {
    emitter.unbind(event, handler);
    done([data, metadata]);
  };
  emitter.bind(event, handler);
});

async function subscribe(pusher, name) {
  const channel = pusher.subscribe(name);
  await next(channel, 'pusher:subscription_succeeded');
  return channel;
}

/** All events of the application from now on, in order, up to one named `end`. */
const untilEnd = (channel) => new Promise((done) => {
  const events = [];
  channel.bind_global((event, data) => {
    if (event === 'end') return done(events);
    events.push([event, data]);
  });
});

const scenarios = {
  async events() {
    const channel = await subscribe(page(), 'orders');
    const got = untilEnd(channel);
    show(await (await server.trigger('orders', 'shipped', { id: 1 })).text());
    for (const data of ['plain', '"quoted"', '1.0', 'it\'s {"half": ', '']) await server.trigger('orders', 'text', data);
    await server.trigger(Array.from({ length: 100 }, (_, n) => (n ? `other-${n}` : 'orders')), 'many', 'x');
    await server.trigger('a,b;c', 'elsewhere', 'x');
    await server.trigger('orders', 'end', '');
    show(await got);
  },

  async names() {
    const channel = await subscribe(page(), 'a,b;c@=.1');
    const got = untilEnd(channel);
    await server.trigger('a,b;c@=.1', 'shipped', 'x');
    await server.trigger('a,b;c@=.1', 'end', '');
    show(await got);
    show(await (await server.get({ path: '/channels' })).json());
  },

  async excluded() {
    const [one, other] = [page(), page('8')];
    const channels = await Promise.all([subscribe(one, 'orders'), subscribe(other, 'orders')]);
    const got = Promise.all(channels.map(untilEnd));
    await server.trigger('orders', 'to others', 'x', { socket_id: one.connection.socket_id });
    await server.trigger('orders', 'to unknown', 'x', { socket_id: '1.1' });
    await server.trigger('orders', 'end', '');
    show(await got);
  },

  async private() {
    const pusher = page();
    await subscribe(pusher, 'private-1');
    const forged = pusher.subscribe('private-forged');
    show((await next(forged, 'pusher:subscription_error'))[0]);
    const mine = await subscribe(pusher, 'my-private-2');
    const got = untilEnd(mine);
    await server.trigger('my-private-2', 'end', '');
    show(await got);
  },

  async whispers() {
    const [one, other] = [page(), page('8')];
    const [sender, receiver] = await Promise.all([subscribe(one, 'private-1'), subscribe(other, 'private-1')]);
    const got = Promise.all([sender, receiver].map(untilEnd));
    sender.trigger('client-typing', { a: [1, 'b'] });
    show((await next(receiver, 'client-typing'))[0]);
    const open = await subscribe(one, 'orders');
    open.trigger('client-typing', {});
    show((await next(one.connection, 'error'))[0].data.code);
    await server.trigger('private-1', 'end', '');
    show(await got);
  },

  async presence() {
    const { default: Echo } = await import('laravel-echo');
    const pushers = [page('7'), page('8'), page('7')];
    const echoes = pushers.map((client) => new Echo({ broadcaster: 'reverb', client, key: 'app-key' }));
    const join = (echo) => new Promise((done) => {
      const room = echo.join('room');
      room.here((users) => done({ room, users }));
    });
    const first = await join(echoes[0]);
    show(first.users);
    const joined = new Promise((done) => first.room.joining(done));
    const second = await join(echoes[1]);
    show(await joined, second.users);
    const third = await join(echoes[2]);
    show(third.users.length, pushers[2].channel('presence-room').members.me.id);
    show(await (await server.get({ path: '/channels/presence-room', params: { info: 'user_count,subscription_count' } })).json());
    show(await (await server.get({ path: '/channels/presence-room/users' })).json());
    // The second page whispers, and the others learn who it is.
    const whisper = next(pushers[0].channel('presence-room'), 'client-hello');
    second.room.whisper('hello', 'x');
    show(await whisper);
    // User 7 has another page, so only the end of the last one is a leave.
    pushers[0].disconnect();
    const left = new Promise((done) => second.room.leaving(done));
    echoes[2].leave('room');
    show(await left, pushers[1].channel('presence-room').members.count);
  },

  async too_many() {
    const pusher = page();
    const names = Array.from({ length: 100 }, (_, n) => `c${n}`);
    await Promise.all(names.map((name) => subscribe(pusher, name)));
    const room = pusher.subscribe('presence-room');
    show((await next(room, 'pusher:subscription_error'))[0].error);
    show(await (await server.get({ path: '/channels/presence-room/users' })).json());
  },

  async cached() {
    const fresh = page().subscribe('cache-x');
    show((await next(fresh, 'pusher:cache_miss'))[0]);
    await server.trigger('cache-x', 'old', 'x');
    await server.trigger('cache-x', 'last', { id: 2 });
    const late = page('8').subscribe('cache-x');
    const got = untilEnd(late);
    await next(late, 'last');
    await server.trigger('cache-x', 'end', '');
    show(await got);
  },

  async encrypted() {
    const pusher = page('7', { nacl: require('tweetnacl') });
    const channel = await subscribe(pusher, 'private-encrypted-x');
    const got = next(channel, 'secret');
    await server.trigger('private-encrypted-x', 'secret', { number: 42 });
    show((await got)[0]);
  },

  async asks() {
    const [one, other] = [page(), page('8')];
    show(await (await server.get({ path: '/channels' })).json());
    await Promise.all([subscribe(one, 'orders'), subscribe(other, 'orders'), subscribe(one, 'private-1')]);
    const ask = async (path, params) => show(await (await server.get({ path, params })).json());
    await ask('/channels', { info: 'subscription_count' });
    await ask('/channels', { filter_by_prefix: 'private-' });
    await ask('/channels/orders', { info: 'subscription_count,user_count' });
    await ask('/channels/nobody', {});
    const batch = Array.from({ length: 10 }, (_, n) => ({ channel: 'orders', name: `e${n}`, data: 'x', ...(n < 2 && { info: 'subscription_count' }) }));
    show(await (await server.triggerBatch(batch)).json());
  },

  async users() {
    const pusher = page();
    await next(pusher.connection, 'connected');
    pusher.signin();
    const hello = new Promise((done) => pusher.user.bind('hello', done));
    // The page subscribes to its own events some time after it has signed in.
    const sending = setInterval(() => server.sendToUser('7', 'hello', { to: 7 }), 50);
    show(await hello);
    clearInterval(sending);
    const ended = next(pusher.connection, 'disconnected');
    show(await (await server.terminateUserConnections('7')).json());
    await ended;
    show(pusher.connection.state);
  },

  async refused() {
    const refuse = async (promise) => {
      const error = await promise.then(() => null, (error) => error);
      show(error && (error.status || error.message));
    };
    const wrong = new PusherServer({ appId: '1', key: 'app-key', secret: 'wrong', ...address });
    await refuse(wrong.trigger('orders', 'x', 'x'));
    await refuse(new PusherServer({ appId: '9', key: 'app-key', secret: 'app-secret', ...address }).trigger('orders', 'x', 'x'));
    await refuse(server.trigger('orders', 'x', 'x'.repeat(10241)));
    await refuse(server.trigger('orders', 'pusher:x', 'x'));
    await refuse(server.get({ path: '/channels/orders/users' }));
    const unknown = page('7', { key: 'no-key' });
    await next(unknown.connection, 'disconnected');
    show(unknown.connection.state);
  },

  async idle() {
    const pusher = page('7', { activityTimeout: 200 });
    let pongs = 0;
    await new Promise((done) => pusher.connection.bind('message', ({ event }) => event === 'pusher:pong' && ++pongs === 5 && done()));
    show(pusher.connection.state);
  },

  async echo() {
    const { default: Echo } = await import('laravel-echo');
    const echo = (broadcaster, user) => new Echo({ broadcaster, client: page(user), key: 'app-key' });
    const [one, other] = [echo('reverb', '7'), echo('pusher', '8')];
    const got = Promise.all([one, other].map((echo) => new Promise((done) => {
      const events = [];
      const note = (event) => (data) => {
        events.push([event, data]);
        if (event === 'end') done(events);
      };
      echo.channel('orders').listen('OrderShipped', note('OrderShipped')).listen('.custom.name', note('custom'))
        .notification(note('notification')).listen('.end', note('end'));
    })));
    await Promise.all([one, other].map((echo) => next(echo.connector.pusher.channel('orders'), 'pusher:subscription_succeeded')));
    await server.trigger('orders', 'App\\Events\\OrderShipped', { id: 1 });
    await server.trigger('orders', 'custom.name', { id: 2 }, { socket_id: one.socketId() });
    await server.trigger('orders', 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', { type: 'x' });
    await server.trigger('orders', 'end', {});
    show(await got);
  },

  /** Reads what other interfaces publish, up to a message with the label `end`. */
  async other_interfaces() {
    const channel = await subscribe(page(), 'orders');
    const got = untilEnd(channel);
    console.log('ready');
    show(await got);
  },

  /** 100 pages wait for the daemon's restart. */
  async restart() {
    const pages = Array.from({ length: 100 }, (_, n) => page(`${n}`));
    const channels = await Promise.all(pages.map((pusher) => subscribe(pusher, 'orders')));
    let tries = 0;
    pages.forEach((pusher) => pusher.connection.bind('connecting', () => tries++));
    const back = Promise.all(channels.map((channel) => next(channel, 'pusher:subscription_succeeded')));
    console.log('ready');
    await back;
    show(tries <= 500);
  },
};

application = http.createServer(authorize).listen(0, '127.0.0.1', async () => {
  await scenarios[scenario]();
  process.exit(0);
});
