/** A chat by long-poll: a message's data is the text, and its label (`name`) is the author. */
'use strict';

const messages = document.getElementById('messages');
const form = document.getElementById('form');
const failed = document.getElementById('failed');
const { name: author, text, send } = form.elements;
/** The idempotency key of the text that is being sent. A second attempt with it cannot publish the text twice. */
let key = '';

function show(row) {
  const atEnd = messages.scrollTop + messages.clientHeight >= messages.scrollHeight - 8;
  messages.append(row);
  while (messages.childElementCount > 200) {
    messages.firstElementChild.remove();
  }
  if (atEnd) {
    messages.scrollTop = messages.scrollHeight; // a reader who has scrolled up stays at that place
  }
}

Comet.subscribe(
  'chat',
  {
    message(m) {
      const row = document.createElement('li');
      row.dataset.id = m.id;
      row.append(Demo.element('time', '', Demo.time(m.id).slice(0, 5)));
      row.append(Demo.element('span', 'from', m.name || 'somebody'));
      row.append(Demo.element('span', 'text', m.encoding === 'base64' ? '(not text)' : m.data));
      show(row);
    },
    gap() {
      const row = document.createElement('li');
      row.append(Demo.element('span', 'gap', 'Something may be missing here: the daemon no longer has it.'));
      show(row);
    },
    state: Demo.state,
  },
  { since: 0, transport: 'longpoll' }
);

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said) {
    return;
  }
  key = key || String(Date.now()) + Math.random();
  send.disabled = true;
  try {
    await Comet.publish('chat', said, { name: author.value.trim(), key });
    key = '';
    text.value = '';
    failed.textContent = '';
  } catch (error) {
    failed.textContent = 'Not sent: ' + error.message;
  }
  send.disabled = false;
  text.focus();
});

text.addEventListener('input', () => {
  key = ''; // another text
});
