// One line of a chart. Where messages are missing, and nothing is known, it is dashed.

export function trace(pen, series, x, y) {
  pen.beginPath();
  const missing = [];
  series.forEach((bucket, at) => {
    const left = x(bucket.from);
    if (bucket.broken && at) missing.push([series[at - 1], bucket]);
    if (!at || bucket.broken) pen.moveTo(left, y(bucket.low));
    pen.lineTo(left, y(bucket.low));
    pen.lineTo(left, y(bucket.high));
    pen.lineTo(x(bucket.at), y(bucket.last));
  });
  pen.stroke();
  pen.setLineDash([2, 5]);
  pen.beginPath();
  for (const [before, after] of missing) {
    pen.moveTo(x(before.at), y(before.last));
    pen.lineTo(x(after.from), y(after.low));
  }
  pen.stroke();
  pen.setLineDash([]);
}
