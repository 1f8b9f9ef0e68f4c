// What has to be said above everything else: that the data is simulated or a replay, that the page stands still, that a part
// of it cannot be drawn. And the buttons that go with it.

import {choose, instrument, title, venue} from './choice.js';
import {byId, mark, put} from './dom.js';
import {isPaused, pause, whenFailed} from './paint.js';

const say = (id, text) => {
  put(byId(id), text);
  mark(byId(id), 'hidden', text ? null : '');
};

const moment = (said) => {
  const at = new Date(said);
  return Number.isNaN(at.getTime()) ? String(said) : at.toLocaleString('en-GB');
};

// The daemon's welcome says what its data is.
export function greet({simulated, replay}) {
  const words = [];
  if (replay) {
    const speed = replay.speed === 'max' ? ', as fast as it goes' : `, at ${replay.speed} times the speed`;
    words.push(`This is a replay of what was recorded from ${moment(replay.from)} to ${moment(replay.to)}${speed}. Nothing here is live.`);
  }
  if (simulated) words.push('The venues are simulated: no price here is a real one.');
  say('unreal', words.join(' '));
}

const still = byId('pause');
still.onclick = () => {
  pause(!isPaused());
  put(still, isPaused() ? 'Go on' : 'Pause');
  say('paused', isPaused() ? 'Paused. Messages go on being received; “Go on” shows how things are then.' : '');
  mark(document.body, 'data-paused', isPaused() ? '' : null);
  title();
};

whenFailed((failures) => {
  const said = failures.map(({name, said}) => `“${name}” (${said})`);
  say('failed', said.length ? `A part of this page cannot be drawn: ${said.join(', ')}. The others go on.` : '');
});

// A link for others has no token in it.
const copy = byId('copy');
copy.hidden = !navigator.clipboard;
copy.onclick = async () => {
  choose({instrument: instrument(), venue: venue()}); // then it stands in the address, also if nobody chose it
  try {
    await navigator.clipboard.writeText(location.href.split('#')[0]);
    put(copy, 'Copied');
  } catch {
    put(copy, 'Not allowed here');
  }
  setTimeout(put, 1500, copy, 'Copy link');
};
