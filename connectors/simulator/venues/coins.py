"""The coins that the simulated CoinGecko lists, the currencies it counts in, and a coin's row.

Names and ids are CoinGecko's; prices and supplies are round figures to start from, not data. Rows
have the fields and types of CoinGecko's OpenAPI description (`/coins/markets`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from connectors.simulator.venues.market import BINANCE, MILLION, Market

IMAGES = "https://coin-images.coingecko.com"
_MARKET_BASES = frozenset(listing.base for listing in BINANCE.values())


class Coin(msgspec.Struct, frozen=True):
    """One coin: its id, symbol (not unique in general), price in dollars, circulating supply."""

    id: str
    symbol: str
    name: str
    price: float
    supply: float


_COINS = """
bitcoin,btc,Bitcoin,97000,19800000
ethereum,eth,Ethereum,3400,120400000
tether,usdt,Tether,1,132000000000
ripple,xrp,XRP,2.3,57000000000
solana,sol,Solana,210,476000000
binancecoin,bnb,BNB,640,146000000
usd-coin,usdc,USDC,1,39000000000
dogecoin,doge,Dogecoin,0.35,147000000000
cardano,ada,Cardano,0.95,35700000000
tron,trx,TRON,0.2,86000000000
avalanche-2,avax,Avalanche,41,409000000
chainlink,link,Chainlink,22,626000000
the-open-network,ton,Toncoin,6.1,2550000000
shiba-inu,shib,Shiba Inu,0.000025,589000000000000
sui,sui,Sui,3.4,2840000000
polkadot,dot,Polkadot,7.5,1520000000
stellar,xlm,Stellar,0.43,30000000000
hedera-hashgraph,hbar,Hedera,0.27,38000000000
bitcoin-cash,bch,Bitcoin Cash,480,19790000
uniswap,uni,Uniswap,13.1,600000000
litecoin,ltc,Litecoin,104,75200000
pepe,pepe,Pepe,0.0000187,420690000000000
leo-token,leo,LEO Token,8.6,924000000
near,near,NEAR Protocol,5.9,1218000000
aptos,apt,Aptos,10.2,539000000
internet-computer,icp,Internet Computer,11.3,476000000
dai,dai,Dai,1,5360000000
ethereum-classic,etc,Ethereum Classic,27.4,150000000
monero,xmr,Monero,187,18450000
render-token,render,Render,7.8,517000000
crypto-com-chain,cro,Cronos,0.15,27300000000
vechain,vet,VeChain,0.045,81000000000
kaspa,kas,Kaspa,0.13,25400000000
arbitrum,arb,Arbitrum,0.81,4150000000
cosmos,atom,Cosmos Hub,7.4,390000000
filecoin,fil,Filecoin,5.6,615000000
mantle,mnt,Mantle,1.15,3360000000
algorand,algo,Algorand,0.33,8310000000
optimism,op,Optimism,1.95,1350000000
bittensor,tao,Bittensor,490,7380000
immutable-x,imx,Immutable,1.4,1710000000
bonk,bonk,Bonk,0.0000301,75000000000000
celestia,tia,Celestia,5.2,460000000
blockstack,stx,Stacks,1.65,1510000000
fantom,ftm,Fantom,0.86,2800000000
injective-protocol,inj,Injective,22.5,98900000
the-graph,grt,The Graph,0.21,9550000000
theta-token,theta,Theta Network,2.4,1000000000
worldcoin-wld,wld,Worldcoin,2.3,850000000
aave,aave,Aave,315,15000000
floki,floki,FLOKI,0.000171,9660000000000
lido-dao,ldo,Lido DAO,1.8,896000000
sei-network,sei,Sei,0.42,4250000000
thorchain,rune,THORChain,4.7,338000000
galatoken,gala,GALA,0.036,38800000000
jasmycoin,jasmy,JasmyCoin,0.035,49400000000
quant-network,qnt,Quant,115,12070000
maker,mkr,Maker,1620,886000
the-sandbox,sand,The Sandbox,0.57,2440000000
flow,flow,Flow,0.75,1540000000
tezos,xtz,Tezos,1.3,1020000000
eos,eos,EOS,0.82,1520000000
flare-networks,flr,Flare,0.027,53000000000
kucoin-shares,kcs,KuCoin,10.8,121000000
bitcoin-cash-sv,bsv,Bitcoin SV,54,19800000
arweave,ar,Arweave,17.2,65600000
starknet,strk,Starknet,0.47,2260000000
axie-infinity,axs,Axie Infinity,6.3,158000000
decentraland,mana,Decentraland,0.49,1940000000
pyth-network,pyth,Pyth Network,0.37,3620000000
neo,neo,NEO,14.2,70500000
dydx-chain,dydx,dYdX,1.5,697000000
elrond-erd-2,egld,MultiversX,34,27600000
conflux-token,cfx,Conflux,0.16,4820000000
apecoin,ape,ApeCoin,1.2,753000000
mina-protocol,mina,Mina Protocol,0.59,1190000000
chiliz,chz,Chiliz,0.084,9300000000
zcash,zec,Zcash,56,15600000
ecash,xec,eCash,0.0000367,19780000000000
iota,iota,IOTA,0.31,3550000000
curve-dao-token,crv,Curve DAO,0.92,1260000000
ronin,ron,Ronin,1.9,373000000
akash-network,akt,Akash Network,3.4,247000000
dogwifcoin,wif,dogwifhat,1.85,998000000
gnosis,gno,Gnosis,265,2590000
bittorrent,btt,BitTorrent,0.00000117,968000000000000
nexo,nexo,NEXO,1.31,646000000
helium,hnt,Helium,6.4,171000000
synthetix-network-token,snx,Synthetix Network,2.05,339000000
compound-governance-token,comp,Compound,84,8850000
pancakeswap-token,cake,PancakeSwap,2.4,289000000
terra-luna,lunc,Terra Luna Classic,0.000113,5500000000000
oasis-network,rose,Oasis,0.083,7040000000
kava,kava,Kava,0.47,1080000000
trust-wallet-token,twt,Trust Wallet,1.16,417000000
1inch,1inch,1inch,0.39,1390000000
dash,dash,Dash,37.5,12100000
zilliqa,zil,Zilliqa,0.022,19300000000
woo-network,woo,WOO,0.21,1900000000
ankr,ankr,Ankr Network,0.035,10000000000
"""

COINS: tuple[Coin, ...] = tuple(
    Coin(key, symbol, name, float(price), float(supply))
    for key, symbol, name, price, supply in (line.split(",") for line in _COINS.split("\n") if line)
)
"""A hundred coins, in no particular order."""

_RATES = """
usd 1 aed 3.6725 ars 1010 aud 1.54 bdt 119.5 bhd 0.377 bmd 1 brl 5.8 cad 1.4 chf 0.89 clp 975
cny 7.25 czk 23.9 dkk 7.05 eur 0.945 gbp 0.79 gel 2.73 hkd 7.78 huf 386 idr 15900 ils 3.72
inr 84.4 jpy 154 krw 1397 kwd 0.308 lkr 291 mmk 2098 mxn 20.4 myr 4.46 ngn 1680 nok 11.05
nzd 1.7 php 58.9 pkr 278 pln 4.1 rub 102 sar 3.75 sek 10.95 sgd 1.34 thb 34.6 try 34.5 twd 32.5
uah 41.3 vef 0.1 vnd 25400 zar 18.1 xdr 0.76 xag 0.032 xau 0.00037
"""
RATES: dict[str, float] = {
    code: float(rate) for code, rate in zip(_RATES.split()[0::2], _RATES.split()[1::2], strict=True)
}
"""How much of a currency one dollar buys. Coins to count in are in `COIN_CURRENCIES`."""

COIN_CURRENCIES: tuple[str, ...] = (
    "btc", "eth", "ltc", "bch", "bnb", "eos", "xrp", "xlm", "link", "dot",
)  # fmt: skip
"""Coins by symbol that may be a `vs_currency`."""


class CoinMarket(msgspec.Struct):
    """One row of `/coins/markets`; numbers are int or float from row to row, as upstream."""

    id: str
    symbol: str
    name: str
    image: str
    current_price: float
    market_cap: int
    market_cap_rank: int | None
    fully_diluted_valuation: int | None
    total_volume: int
    high_24h: float
    low_24h: float
    price_change_24h: float
    price_change_percentage_24h: float
    market_cap_change_24h: float
    market_cap_change_percentage_24h: float
    circulating_supply: float
    total_supply: float | None
    max_supply: float | None
    ath: float
    ath_change_percentage: float
    ath_date: str
    atl: float
    atl_change_percentage: float
    atl_date: str
    roi: dict[str, float | str] | None
    last_updated: str


ORDERS: dict[str, Callable[[CoinMarket], tuple[object, ...]]] = {
    "market_cap_desc": lambda row: (-row.market_cap,),
    "market_cap_asc": lambda row: (row.market_cap,),
    "volume_desc": lambda row: (-row.total_volume,),
    "volume_asc": lambda row: (row.total_volume,),
    "id_asc": lambda row: (row.id,),
    "id_desc": lambda row: tuple(-ord(letter) for letter in row.id),
}
"""How `/coins/markets` can be sorted, by its `order`."""


def _price(market: Market, coin: Coin, step: int) -> float:
    """A coin's price in dollars: the market's where it has one, else on a borrowed walk."""
    base = coin.symbol.upper()
    if base in _MARKET_BASES:
        return market.usd_price(base, step)
    if coin.price == 1:
        return 1 + market.walk("BTC").at(step + int(coin.supply)) / (50 * MILLION)
    phase = sum(map(ord, coin.id)) * 37
    return coin.price * (1 + 2 * market.walk("ETH").at(step + phase) / MILLION)


def rate(market: Market, currency: str, step: int) -> float:
    """How much of `currency` one dollar buys."""
    if currency in RATES:
        return RATES[currency]
    coin = next(coin for coin in COINS if coin.symbol == currency)
    return 1 / _price(market, coin, step)


def coin_rows(market: Market, step: int, epoch_s: float, per_dollar: float) -> list[CoinMarket]:
    """Every coin's row, largest first, priced in a currency of which a dollar buys `per_dollar`."""
    rows = [_row(market, coin, step, epoch_s, per_dollar) for coin in COINS]
    rows.sort(key=ORDERS["market_cap_desc"])
    for rank, row in enumerate(rows, 1):
        # New coins are unranked upstream; the last one here stands for them.
        row.market_cap_rank = rank if rank < len(rows) else None
    return rows


def _row(market: Market, coin: Coin, step: int, epoch_s: float, per_dollar: float) -> CoinMarket:
    rng = random.Random(f"{market.seed}/{coin.id}")
    price = _price(market, coin, step) * per_dollar
    opened = coin.price * per_dollar * (1 + rng.uniform(-0.05, 0.05))
    change = price - opened
    cap = price * coin.supply
    ath, atl = (
        coin.price * per_dollar * rng.uniform(1.2, 9),
        coin.price * per_dollar * rng.uniform(0.001, 0.6),
    )
    capped = rng.random() < 0.4
    counted = rng.random() < 0.9
    return CoinMarket(
        id=coin.id,
        symbol=coin.symbol,
        name=coin.name,
        image=f"{IMAGES}/coins/images/{rng.randrange(1, 40_000)}/large/{coin.id}.png?1696501400",
        current_price=_number(price),
        market_cap=round(cap),
        market_cap_rank=None,
        fully_diluted_valuation=round(cap * 1.1) if counted else None,
        total_volume=round(cap * rng.uniform(0.01, 0.2)),
        high_24h=_number(max(price, opened) * 1.006),
        low_24h=_number(min(price, opened) * 0.994),
        price_change_24h=change,
        price_change_percentage_24h=round(change / opened * 100, 5),
        market_cap_change_24h=change * coin.supply,
        market_cap_change_percentage_24h=round(change / opened * 100, 5),
        circulating_supply=coin.supply,
        total_supply=coin.supply * 1.1 if counted else None,
        max_supply=coin.supply * 1.25 if capped else None,
        ath=_number(ath),
        ath_change_percentage=round((price / ath - 1) * 100, 5),
        ath_date="2025-10-06T18:57:42.558Z",
        atl=_number(atl),
        atl_change_percentage=round((price / atl - 1) * 100, 5),
        atl_date="2013-07-06T00:00:00.000Z",
        roi={"times": 41.37, "currency": "btc", "percentage": 4137.13} if coin.id == "ethereum" else None,
        last_updated=_iso(epoch_s),
    )


def _number(value: float) -> float:
    """Whole numbers from ten thousand on, cents from one on, six figures below, as upstream."""
    if value >= 10_000:
        return round(value)
    return round(value, 2) if value >= 1 else float(f"{value:.6g}")


def _iso(epoch_s: float) -> str:
    moment = datetime.fromtimestamp(epoch_s, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
