// When the views are drawn: what was touched, all together ten times a second at most, and nothing in a pause. So the work
// does not grow with the number of messages. A hidden tab draws nothing, and all of it when somebody looks again.

const EVERY_MS = 100;

const views = new Map(); // name: what it draws
const touched = new Set();
const failures = new Map(); // what threw: what it said last
let paused = false;
let frame = 0;
let timer = 0;
let drawnAt = -EVERY_MS;
let onFailure = () => {};

// `draw` belongs to the view of that name, which is drawn after it was touched; with `always` in a pause too.
export function view(name, draw, {always = false} = {}) {
  views.set(name, [...(views.get(name) ?? []), {name, draw, always}]);
}

export function touch(name) {
  touched.add(name);
  if (frame || timer) return;
  const wait_ms = drawnAt + EVERY_MS - performance.now();
  if (wait_ms > 4) timer = setTimeout(request, wait_ms);
  else request();
}

// The same for what somebody has just done and waits to see.
export function touchNow(...names) {
  names.forEach((name) => touched.add(name));
  request();
}

function request() {
  timer = clearTimeout(timer);
  frame ||= requestAnimationFrame(render);
}

function render() {
  frame = 0;
  drawnAt = performance.now();
  const due = [...touched].flatMap((name) => views.get(name) ?? []);
  touched.clear();
  for (const one of due) {
    if (paused && !one.always) continue;
    try {
      one.draw();
      if (failures.delete(one)) onFailure(failed());
    } catch (error) {
      // The others go on. It is tried again, and told once.
      if (failures.get(one) === `${error}`) continue;
      failures.set(one, `${error}`);
      onFailure(failed());
      reportError(error);
    }
  }
}

const failed = () => [...failures].map(([{name}, said]) => ({name, said}));

// Be told which views cannot be drawn, whenever that changes.
export function whenFailed(tell) {
  onFailure = tell;
}

// Stand still, or show how things are now.
export function pause(still) {
  paused = still;
  touchNow(...views.keys());
}

export const isPaused = () => paused;
