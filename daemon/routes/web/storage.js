// What the browser keeps from one visit to the next. Where it keeps nothing (private windows, full disks), this visit does.

const PREFIX = 'tickerd.';

const here = new Map();

export function stored(name, otherwise) {
  if (here.has(name)) return here.get(name);
  try {
    const said = JSON.parse(localStorage.getItem(PREFIX + name));
    return typeof said === typeof otherwise && Array.isArray(said) === Array.isArray(otherwise) ? said ?? otherwise : otherwise;
  } catch {
    return otherwise; // not allowed, or not ours
  }
}

export function store(name, value) {
  here.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // It is kept in `here`.
  }
}
