// What all charts have in common: a sheet of the right size, scales, rulers.

import {colour} from './colours.js';
import {touchNow} from './paint.js';

const FONT = `12px ${getComputedStyle(document.body).fontFamily}`;

// A clean sheet over this canvas each time it is asked for; null while it has no size. The size is told by the browser:
// to ask for it in each frame would have the page laid out again.
export function sheet(canvas, name) {
  let [width, height] = [0, 0];
  new ResizeObserver(([{contentRect}]) => {
    ({width, height} = contentRect);
    touchNow(name);
  }).observe(canvas);
  return () => {
    if (!width || !height) return null;
    const [x, y] = [width, height].map((length) => Math.round(length * devicePixelRatio));
    if (canvas.width !== x || canvas.height !== y) Object.assign(canvas, {width: x, height: y});
    const pen = canvas.getContext('2d');
    pen.setTransform(x / width, 0, 0, y / height, 0, 0);
    pen.clearRect(0, 0, width, height);
    Object.assign(pen, {lineJoin: 'round', font: FONT, textBaseline: 'middle', textAlign: 'left', lineWidth: 1});
    return {pen, width, height};
  };
}

export const scale = (from, to, low, high) => (value) => (
  high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2
);

// Horizontal lines at these heights, on whole pixels.
export function rule(pen, left, right, heights) {
  pen.strokeStyle = colour('line');
  pen.lineWidth = 1;
  pen.beginPath();
  for (const height of heights) {
    pen.moveTo(left, Math.round(height) + 0.5);
    pen.lineTo(right, Math.round(height) + 0.5);
  }
  pen.stroke();
}

// A text on a coloured ground, to the right of x.
export function label(pen, text, x, y, room, ground) {
  pen.fillStyle = colour(ground);
  pen.beginPath();
  pen.roundRect(x - 6, y - 10, room + 6, 20, 4);
  pen.fill();
  pen.fillStyle = colour('surface');
  pen.fillText(text, x, y + 0.5, room - 4);
}
