/** Code that the demo pages share: facts about the daemon, the state of the connection, and lists of messages. */
'use strict';

const Demo = {
  /** Asks the daemon for its facts and shows them. */
  async inform() {
    Demo.fill({ origin: location.origin });
    try {
      Demo.fill(await (await fetch('/demo.json', { cache: 'no-store' })).json());
    } catch (_) {
      // The daemon is down. The page shows the facts of a default daemon, and asks again when the daemon is back.
    }
  },

  /** Fills every element with `data-info="dir"` (`socket`, `version`, `origin`) with the fact of that name. */
  fill(info) {
    document.querySelectorAll('[data-info]').forEach((element) => {
      const value = info[element.dataset.info];
      if (value) {
        const path = value.startsWith('/') && element.closest('.shell');
        element.textContent = path ? Demo.quote(value) : value;
      }
    });
  },

  /** Quotes a word for a shell if necessary. */
  quote(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replace(/'/g, "'\\''") + "'";
  },

  /** Shows a state of `Comet.subscribe`. Pass this function as the `state` handler. */
  state(state, reason) {
    const texts = {
      connecting: 'connecting …',
      open: 'connected',
      away: 'away',
      closed: reason || 'closed',
    };
    const element = document.getElementById('state');
    const before = element.dataset.state;
    element.dataset.state = state;
    element.textContent = texts[state];
    document.getElementById('away').hidden = state !== 'away';
    if (state === 'open' && before === 'away') {
      Demo.inform(); // another daemon with other facts may answer now
    }
  },

  /** Makes an element with a class and a text. All outside data enters the page through this function, as text. */
  element(tag, className, text) {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  },

  /** The local time of an id, such as `12:34:56.789`. */
  time(id) {
    const date = new Date(id / 1000);
    const two = (n) => String(n).padStart(2, '0');
    const seconds = two(date.getSeconds()) + '.' + String(date.getMilliseconds()).padStart(3, '0');
    return two(date.getHours()) + ':' + two(date.getMinutes()) + ':' + seconds;
  },

  /** The age of an id as text. Empty if the message is old, or if the clocks of browser and daemon differ. */
  delay(id) {
    const ms = performance.timeOrigin + performance.now() - id / 1000;
    return ms > 0 && ms < 1000 ? ms.toFixed(1) + ' ms later' : '';
  },

  /** Handlers for `Comet.subscribe` that show messages in a list, the newest first and 200 at most. */
  list(element) {
    const add = (row) => {
      element.prepend(row);
      while (element.childElementCount > 200) {
        element.lastElementChild.remove();
      }
    };
    return {
      message(m) {
        const row = document.createElement('li');
        row.dataset.id = m.id;
        row.append(Demo.element('time', '', Demo.time(m.id)));
        if (m.name) {
          row.append(Demo.element('strong', 'name', m.name));
        }
        const text = m.encoding === 'base64' ? m.data + ' (base64)' : m.data;
        row.append(Demo.element('span', text ? 'data' : 'empty', text || 'touched'));
        row.append(Demo.element('span', 'delay', Demo.delay(m.id)));
        add(row);
      },
      gap() {
        const row = document.createElement('li');
        row.append(Demo.element('span', 'gap', 'Older messages may be missing: the daemon no longer has them.'));
        add(row);
      },
    };
  },
};

Demo.inform(); // scripts are deferred, so the page is already parsed
