//! Makes a sale file from a seed: the shipped one is `endstate demo --generate 11 > demo/sale.ndjson`.
//!
//! Everything is drawn from one stream of random numbers, so a seed gives the same bytes on every machine and in every year.

use super::names::{FAMILY_NAMES, GIVEN_NAMES, GOODS, WORLD_NAMES};
use super::random::Random;
use super::sale::{Coupon, Customer, Goods, Header, Journey, Line, OrderLine, Promotion, StockStrategy, Story};
use std::collections::BTreeMap;

const CUSTOMERS: usize = 900;

/// How many buyers have each story: most pay, and every odd story is there often enough to meet a kill.
const STORIES: [(Story, usize); 15] = [
    (Story::Pay, 1330),
    (Story::PayRepeated, 250),
    (Story::PayTwice, 120),
    (Story::PayLate, 120),
    (Story::PayWrongAmount, 80),
    (Story::Lapse, 200),
    (Story::CancelBeforePayment, 180),
    (Story::CancelAfterPayment, 120),
    (Story::RiskCancel, 100),
    (Story::WarehouseCancel, 60),
    (Story::RefundLine, 150),
    (Story::ShortStock, 120),
    (Story::ShortStockStandby, 90),
    (Story::CouponReused, 50),
    (Story::TooFewPoints, 50),
];

/// Promotions: name, when stock is taken, how long an order may stay unpaid, when it opens. The limits are seconds,
/// where a shop has 20 minutes, so that orders lapse while somebody watches.
const PROMOTIONS: [(&str, StockStrategy, i64, u64); 8] = [
    ("双十一 零点秒杀 · Singles' Day midnight drop", StockStrategy::Reserve, 6, 0),
    ("数码专场 · Digital hour", StockStrategy::Reserve, 5, 2_500),
    ("家电直降 · Appliances, straight down", StockStrategy::AtOrder, 6, 5_500),
    ("美妆满减 · Beauty bundles", StockStrategy::AtOrder, 5, 8_500),
    ("生鲜拼单 · Fresh from the farm", StockStrategy::AtPayment, 5, 11_500),
    ("母婴专享 · Mother and child", StockStrategy::AtPayment, 6, 14_500),
    ("限量发售 · Limited editions", StockStrategy::Reserve, 5, 4_000),
    ("清仓尾货 · Last of the shelf", StockStrategy::AtPayment, 5, 7_000),
];

/// Goods that are meant to run out: (stock, standby). The first few carry standby stock.
const SCARCE: [(i64, i64); 6] = [(12, 15), (10, 40), (8, 10), (10, 0), (15, 0), (12, 0)];

/// The lines of a sale, one JSON object each.
pub(crate) fn generate(seed: u64) -> String {
    let lines = lines(seed);
    let text = lines.iter().map(|line| serde_json::to_string(line).expect("plain data serializes"));
    text.fold(String::new(), |all, line| all + &line + "\n")
}

/// The same, before they are text.
pub(crate) fn lines(seed: u64) -> Vec<Line> {
    let mut maker = Maker::new(seed);
    let journeys = maker.journeys();
    let header = Header { version: 1, name: "双十一 Singles' Day".to_owned(), currency: "CNY".to_owned() };
    let mut lines = vec![Line::Sale(header)];
    lines.extend(maker.promotions.into_iter().map(Line::Promotion));
    for mut goods in maker.goods {
        if goods.stock == 0 {
            // Enough for everybody, whoever pays; scarce goods have their own stock.
            let wanted = maker.wanted.get(&goods.sku).copied().unwrap_or(0);
            goods.stock = (wanted / 50 + 2) * 50;
        }
        lines.push(Line::Goods(goods));
    }
    lines.extend(maker.customers.into_iter().map(Line::Customer));
    lines.extend(journeys.into_iter().map(Line::Journey));
    lines
}

struct Maker {
    random: Random,
    promotions: Vec<Promotion>,
    goods: Vec<Goods>,
    customers: Vec<Customer>,
    /// What ordinary orders may still spend, so that they never fail by accident.
    purse: Vec<(i64, Vec<Coupon>)>,
    wanted: BTreeMap<String, i64>,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let promotions = PROMOTIONS.iter().enumerate().map(|(i, (name, stock_strategy, pay_within_s, _))| Promotion {
            id: format!("P{:02}", i + 1),
            name: (*name).to_owned(),
            stock_strategy: *stock_strategy,
            pay_within_s: *pay_within_s,
        });
        let mut goods: Vec<Goods> = (0..).zip(&GOODS).map(|(i, item)| goods(i, item, 0, 0)).collect();
        for (i, (stock, standby)) in SCARCE.into_iter().enumerate() {
            let (name, price) = GOODS[i * 5];
            goods.push(self::goods(1_000 + i, &(&format!("{name} · 签名限量 signed"), price * 2), stock, standby));
        }
        let customers: Vec<Customer> = (0..CUSTOMERS).map(|i| customer(&mut random, i)).collect();
        let purse = customers.iter().map(|customer| (customer.points, customer.coupons.clone())).collect();
        Self { random, promotions: promotions.collect(), goods, customers, purse, wanted: BTreeMap::new() }
    }

    fn journeys(&mut self) -> Vec<Journey> {
        let mut stories: Vec<Story> =
            STORIES.iter().flat_map(|(story, count)| std::iter::repeat_n(*story, *count)).collect();
        self.random.shuffle(&mut stories);
        let mut shared_coupon = None;
        let mut journeys: Vec<Journey> =
            stories.into_iter().map(|story| self.journey(story, &mut shared_coupon)).collect();
        journeys.sort_by_key(|journey| journey.at_ms);
        for (i, journey) in journeys.iter_mut().enumerate() {
            journey.order = format!("FS2611110{:05}", i * 7 + 101);
        }
        journeys
    }

    fn journey(&mut self, story: Story, shared_coupon: &mut Option<(usize, String)>) -> Journey {
        let promotion = match story {
            Story::ShortStock => [6, 7][self.random.below(2)],
            Story::ShortStockStandby => 7,
            _ => self.random.below(6),
        };
        // Crowds come when a promotion opens and thin out over eight seconds.
        let haste = self.random.below(1_000) as u64;
        let at_ms = PROMOTIONS[promotion].3 + haste * haste / 125;
        let mut buyer = self.random.below(CUSTOMERS);
        let lines = self.lines(story);
        let total: i64 = lines.iter().map(|line| self.price(&line.sku) * line.quantity).sum();
        let (mut coupon, mut points) = (None, 0);
        match story {
            Story::CouponReused => {
                // Every second one takes the coupon of the one before.
                (buyer, coupon) = match shared_coupon.take() {
                    Some((buyer, coupon)) => (buyer, Some(coupon)),
                    None => {
                        let (buyer, id) = self.dearest_coupon(buyer);
                        *shared_coupon = Some((buyer, id.clone()));
                        (buyer, Some(id))
                    }
                };
            }
            // More than any buyer can have, awards included.
            Story::TooFewPoints => points = 250_000 + self.random.below(20_000) as i64,
            _ => (coupon, points) = self.spend(buyer, total),
        }
        Journey {
            order: String::new(),
            at_ms,
            customer: self.customers[buyer].id.clone(),
            promotion: self.promotions[promotion].id.clone(),
            lines,
            coupon,
            points,
            story,
        }
    }

    fn lines(&mut self, story: Story) -> Vec<OrderLine> {
        let ordinary = GOODS.len();
        let skus: Vec<usize> = match story {
            Story::ShortStock => vec![ordinary + 3 + self.random.below(3)],
            Story::ShortStockStandby => vec![ordinary + self.random.below(3)],
            // The dearest goods, so that the points asked for are worth less than the order.
            Story::TooFewPoints => vec![self.random.below(6)],
            Story::CouponReused => vec![6 + self.random.below(ordinary - 6)],
            Story::RefundLine => vec![self.random.below(ordinary / 2), ordinary / 2 + self.random.below(ordinary / 2)],
            _ => {
                let mut skus = vec![self.random.below(ordinary)];
                if self.random.chance(25) {
                    skus.push((skus[0] + 1 + self.random.below(ordinary - 1)) % ordinary);
                }
                skus
            }
        };
        let scarce = matches!(story, Story::ShortStock | Story::ShortStockStandby);
        let lines: Vec<OrderLine> = skus
            .into_iter()
            .map(|sku| {
                let quantity = if !scarce && self.random.chance(15) { 2 } else { 1 };
                OrderLine { sku: self.goods[sku].sku.clone(), quantity }
            })
            .collect();
        for line in &lines {
            *self.wanted.entry(line.sku.clone()).or_default() += line.quantity;
        }
        lines
    }

    /// Points and a coupon, within what the buyer has left and what the order costs; now and then all of the price.
    fn spend(&mut self, buyer: usize, total: i64) -> (Option<String>, i64) {
        let wants_points = self.random.chance(35);
        let wants_coupon = self.random.chance(30);
        let (points_left, coupons) = &mut self.purse[buyer];
        let coupon = if wants_coupon { coupons.pop_if(|coupon| coupon.value_minor < total) } else { None };
        let rest = total - coupon.as_ref().map_or(0, |coupon| coupon.value_minor);
        let points = if wants_points { (*points_left).min(rest) } else { 0 };
        *points_left -= points;
        (coupon.map(|coupon| coupon.id), points)
    }

    /// A coupon that nobody has planned to use, from this buyer or one after.
    fn dearest_coupon(&mut self, from: usize) -> (usize, String) {
        let buyer = (0..CUSTOMERS).map(|i| (from + i) % CUSTOMERS).find(|buyer| !self.purse[*buyer].1.is_empty());
        let buyer = buyer.expect("more coupons than orders that use one");
        (buyer, self.purse[buyer].1.pop().expect("just seen").id)
    }

    fn price(&self, sku: &str) -> i64 {
        self.goods.iter().find(|goods| goods.sku == sku).map_or(0, |goods| goods.price_minor)
    }
}

fn goods(number: usize, (name, price_minor): &(&str, i64), stock: i64, standby: i64) -> Goods {
    Goods {
        sku: format!("SKU-{:05}", 10_000 + number * 13),
        name: (*name).to_owned(),
        price_minor: *price_minor,
        stock,
        standby,
    }
}

fn customer(random: &mut Random, number: usize) -> Customer {
    let name = if random.chance(65) {
        let given = GIVEN_NAMES[random.below(GIVEN_NAMES.len())];
        format!("{}{given}", FAMILY_NAMES[random.below(FAMILY_NAMES.len())])
    } else {
        WORLD_NAMES[random.below(WORLD_NAMES.len())].to_owned()
    };
    let points = if random.chance(70) { 50 + random.below(2_950) as i64 } else { 0 };
    let coupons = (0..random.below(4)).map(|i| Coupon {
        id: format!("CP{number:04}{i}"),
        value_minor: [500, 1_000, 1_500, 2_000, 3_000][random.below(5)],
    });
    Customer { id: format!("u{:06}", 200_000 + number * 37), name, points, coupons: coupons.collect() }
}
