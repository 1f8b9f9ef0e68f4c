// The whole market: figures, the largest coins, what people search for.

import {byId, figures, make, mark, put, putChange, putDigits, rowHead, rows} from './dom.js';
import {exactly, lists} from './market.js';
import {isNumber, plain, value, word} from './numbers.js';
import {touchNow, view} from './paint.js';

const SHARES = 6;
const MOST_ROWS = 250; // more than is asked for

// The `data` of the newest message, with each number as the venue's digits; parsed once.
function data(view) {
  const newest = lists.get(view);
  if (newest) newest.data ??= exactly(newest.text).data;
  return newest?.data ?? {};
}

// What is a list, and of that what can be a row.
const listed = (list) => (Array.isArray(list) ? list : []).filter((row) => row instanceof Object).slice(0, MOST_ROWS);

// By id; one that has none has its place.
const keyed = (coins) => new Map(coins.map((coin, at) => [coin.id ?? at, coin]));

// The head of a coin's row, and what names the coin there.
function coinHead() {
  const [name, symbol] = [make('b'), make('span', 'muted')];
  const call = (coin) => {
    put(name, word(coin.name));
    put(symbol, word(coin.symbol).toUpperCase());
  };
  return {head: rowHead(name, ' ', symbol), call};
}

const LARGE = 1e6;

// An amount of money: what is behind the point of a large one says nothing. It is there when somebody points at it.
function putAmount(element, digits) {
  putDigits(element, digits);
  if (value(digits) >= LARGE) put(element, plain(value(digits).toFixed(0)));
}

const FIGURES = {
  'Market capitalisation, USD': [putAmount, ({total_market_cap}) => total_market_cap?.usd],
  'Its change in 24 h': [putChange, (all) => all.market_cap_change_percentage_24h_usd],
  'Volume in 24 h, USD': [putAmount, ({total_volume}) => total_volume?.usd],
  'Coins': [putDigits, (all) => all.active_cryptocurrencies],
  'Markets': [putDigits, (all) => all.markets],
};
const showFigures = figures(byId('figures'));
const showShares = rows(byId('shares'), (symbol) => {
  const share = make('span');
  return {element: make('li', '', make('span', 'name', symbol.toUpperCase()), share), share};
});

view('market', () => {
  const all = data('market');
  showFigures(Object.keys(FIGURES), ({value: element}, name) => {
    const [show, of] = FIGURES[name];
    show(element, of(all));
  });
  const shares = Object.fromEntries(Object.entries(all.market_cap_percentage ?? {}).slice(0, SHARES));
  showShares(Object.keys(shares), (row, symbol) => {
    const share = value(shares[symbol]) || 0;
    put(row.share, `${plain(share.toFixed(2))}\u2009%`);
    mark(row.element, 'title', `${word(shares[symbol])} %`);
    row.element.style.setProperty('--share', share / 100);
  });
});

const COLUMNS = [
  {name: '#', key: 'market_cap_rank', first: 1},
  {name: 'Coin', key: 'name', first: 1, text: true},
  {name: 'USD', key: 'current_price'},
  {name: '24 h', key: 'price_change_percentage_24h', show: putChange},
  {name: 'Market cap', key: 'market_cap', show: putAmount},
  {name: 'Volume 24 h', key: 'total_volume', show: putAmount},
];
let sort = {column: COLUMNS[0], direction: 1};
const heads = COLUMNS.map((column) => {
  const button = make('button', '', column.name);
  button.onclick = () => {
    sort = {column, direction: sort.column === column ? -sort.direction : column.first ?? -1};
    touchNow('top');
  };
  return {column, head: make('th', '', button)};
});
byId('top-head').append(...heads.map(({head}) => head));

const showTop = rows(byId('top-rows'), () => {
  const coin = coinHead();
  const cells = COLUMNS.map(({text}) => (text ? coin.head : make('td')));
  return {element: make('tr', '', ...cells), cells, ...coin};
});

function inOrder(a, b) {
  const {column: {key, text}, direction} = sort;
  const [x, y] = [a[key], b[key]].map(text ? word : value);
  const [known, other] = [x, y].map(text ? Boolean : isNumber);
  if (!known || !other) return other - known; // unknown ones last, either way
  return direction * (text ? x.localeCompare(y, 'en') : x - y);
}

view('top', () => {
  for (const {column, head} of heads) {
    mark(head, 'aria-sort', sort.column === column ? (sort.direction > 0 ? 'ascending' : 'descending') : null);
  }
  const coins = keyed(listed(data('top').coins).sort(inOrder));
  showTop([...coins.keys()], (row, id) => {
    const coin = coins.get(id);
    COLUMNS.forEach(({key, text, show = putDigits}, at) => text || show(row.cells[at], coin[key]));
    row.call(coin);
  });
});

const showTrending = rows(byId('trending-rows'), () => {
  const coin = coinHead();
  const [price, change] = [make('td'), make('td')];
  return {element: make('tr', '', coin.head, price, change), price, change, ...coin};
});

view('trending', () => {
  const coins = keyed(listed(data('trending').coins).map(({item}) => item ?? {}));
  showTrending([...coins.keys()], (row, id) => {
    const {data: about} = coins.get(id);
    row.call(coins.get(id));
    putDigits(row.price, about?.price);
    putChange(row.change, about?.price_change_percentage_24h?.usd);
  });
});
