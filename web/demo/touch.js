/** Shows the messages of the channel `hello`, and publishes to it by a button. */
'use strict';

Comet.subscribe('hello', { ...Demo.list(document.getElementById('messages')), state: Demo.state }, { since: 0 });

document.getElementById('publish').addEventListener('click', async () => {
  const failed = document.getElementById('failed');
  try {
    await Comet.publish('hello', 'from a browser');
    failed.textContent = '';
  } catch (error) {
    failed.textContent = 'Not published: ' + error.message;
  }
});
