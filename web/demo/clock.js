/**
 * Shows the daemon's clock by a forever-iframe. Scripts in the frame call `comet.printServerTime` of this page. A page
 * cannot see that a frame's stream has ended. So the page watches the ticks, and makes a new frame when they stop.
 */
'use strict';

/** Milliseconds without a tick after which a frame is replaced. */
const SILENCE = 3500;
/** Ticks after which a frame is replaced, because its document grows by one script a second. */
const LONG_ENOUGH = 600;

let frame = null;
let made = 0;
let ticks = 0;
let ticksOfFrame = 0;
let failures = 0;
/** Time at which the frame is replaced unless a tick arrives. */
let deadline = Infinity;

function makeFrame() {
  if (frame) {
    frame.remove();
  }
  frame = document.createElement('iframe');
  frame.hidden = true;
  frame.title = 'The stream of the clock';
  frame.src = '/clock.php';
  document.body.append(frame);
  made += 1;
  ticksOfFrame = 0;
  document.getElementById('frames').textContent = made;
  // The time grows with each failure and is random, because many pages may wait for the same daemon.
  deadline = Date.now() + SILENCE + Math.random() * Math.min(15000, 1000 * 2 ** failures);
  failures += 1;
}

/** The function that the daemon's scripts call once a second with the seconds since 1970. */
window.comet = {
  printServerTime(seconds) {
    const date = new Date(seconds * 1000);
    document.getElementById('clock').textContent = date.toLocaleTimeString('en-GB');
    document.getElementById('date').textContent = date.toLocaleDateString('en-GB', { dateStyle: 'full' });
    ticks += 1;
    ticksOfFrame += 1;
    failures = 0;
    deadline = Date.now() + SILENCE;
    document.getElementById('ticks').textContent = ticks;
    Demo.state('open');
    if (ticksOfFrame === LONG_ENOUGH) {
      setTimeout(makeFrame); // not from within the frame that it removes
    }
  },
};

function watch() {
  if (Date.now() > deadline) {
    Demo.state('away');
    makeFrame();
  }
}

// The frame never ends. Made earlier, it would keep the page from finishing its loading.
addEventListener('load', () => {
  setTimeout(makeFrame);
  setInterval(watch, 500);
});
