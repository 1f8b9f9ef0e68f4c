// The crosshair over the chart: time and values where somebody points, or goes to with the arrow keys.

import {label, sheet} from './canvas.js';
import {colour} from './colours.js';
import {byId, put} from './dom.js';
import {plain} from './numbers.js';
import {touchNow, view} from './paint.js';

const canvas = byId('chart-canvas');
const read = byId('chart-read');
const paper = sheet(byId('chart-cross'), 'cross');

let drawn = null; // the chart below: scales and points
let pointed = null; // {x, y} of the pointer
let stepped = null; // or the time that the keys have come to

// The chart has been drawn anew; null if there is nothing on it.
export function aim(chart) {
  drawn = chart;
  if (pointed || stepped) touchNow('cross');
}

const nearest = (at) => drawn.points.reduce((best, point, place) => (
  Math.abs(point.at - at) < Math.abs(drawn.points[best].at - at) ? place : best
), 0);

function at(x) {
  const {x: scaled, points} = drawn;
  return points.reduce((best, point) => (Math.abs(scaled(point.at) - x) < Math.abs(scaled(best.at) - x) ? point : best));
}

view('cross', () => {
  const over = paper();
  const point = drawn?.points.length ? (pointed ? at(pointed.x) : stepped && drawn.points[nearest(stepped)]) : null;
  put(read, point ? point.said.join(', ') : '');
  if (!over || !point) return;
  const {pen} = over;
  const {x, y, low, high, right, bottom, decimals} = drawn;
  const across = pointed ? Math.min(pointed.y, y(low)) : y(point.price);
  pen.strokeStyle = colour('muted');
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(Math.round(x(point.at)) + 0.5, 0);
  pen.lineTo(Math.round(x(point.at)) + 0.5, bottom);
  pen.moveTo(0, Math.round(across) + 0.5);
  pen.lineTo(right, Math.round(across) + 0.5);
  pen.stroke();
  pen.setLineDash([]);
  const price = low + ((y(low) - across) / (y(low) - y(high))) * (high - low);
  label(pen, plain(price.toFixed(Math.min(decimals, 20))), right + 10, across, drawn.width - right - 10, 'text');
  pen.fillStyle = colour('accent');
  pen.beginPath();
  pen.arc(x(point.at), y(point.price), 3.5, 0, 7);
  pen.fill();
}, {always: true});

canvas.addEventListener('pointermove', ({offsetX, offsetY}) => {
  [pointed, stepped] = [{x: offsetX, y: offsetY}, null];
  read.removeAttribute('aria-live'); // what one points at is not read aloud
  touchNow('cross');
});

function leave() {
  pointed = stepped = null;
  touchNow('cross');
}

canvas.addEventListener('pointerleave', leave);
canvas.addEventListener('blur', leave);
canvas.addEventListener('keydown', (pressed) => {
  const {key} = pressed;
  if (key === 'Escape') return leave();
  if (!drawn?.points.length || !['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(key)) return;
  pressed.preventDefault();
  const last = drawn.points.length - 1;
  const here = stepped === null ? last + 1 : nearest(stepped);
  const to = {ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last}[key];
  stepped = drawn.points[Math.max(0, Math.min(last, to))].at;
  pointed = null;
  read.setAttribute('aria-live', 'polite');
  touchNow('cross');
});
