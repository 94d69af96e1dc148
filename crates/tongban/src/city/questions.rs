//! What departments answer about the invented city, known without asking any: for the same test on every form of its data.

use super::{City, HOMES, Home, SALES, address, stranger};
use serde_json::{Value, json};

/// How many of each kind of question are asked.
const EACH: usize = 12;

fn asked(query: &str, subject: Value, answer: Value) -> Value {
    json!({ "query": query, "subject": subject, "answer": answer })
}

fn nothing(query: &str, subject: Value) -> Value {
    json!({ "query": query, "subject": subject, "answer": null, "reason": "not_found" })
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

impl City {
    /// Questions to a department, as `tongban connector test` reads them: the query, its subject and parameters, and the answer.
    pub(super) fn questions(&self, department: &str) -> Vec<Value> {
        match department {
            "police" => self.of_police(),
            "civil" => self.of_civil(),
            "court" => self.of_court(),
            "registry" => self.of_registry(),
            "housing" => self.of_housing(),
            "tax" => self.of_tax(),
            "power" => self.of_utility("power.account.settled", |h| ("account", h.power.clone())),
            "water" => self.of_utility("water.account.settled", |h| ("unit", h.unit.clone())),
            "gas" => self.of_utility("gas.account.settled", |h| ("unit", h.unit.clone())),
            "market" => vec![asked(
                "market.name.taken",
                json!({ "subject": "北京清荷信息技术有限公司" }),
                json!({ "taken": "no" }),
            )],
            _ => vec![],
        }
    }

    fn of_police(&self) -> Vec<Value> {
        let query = "police.identity.name_matches";
        let mut questions = Vec::new();
        for i in 0..EACH {
            let (citizen, other) = (&self.citizens[i * 811], &self.citizens[i * 811 + 1]);
            let mut ask = |id: &str, name: &str, answer: &str| {
                let subject = json!({ "subject": id, "name": name });
                questions.push(asked(query, subject, json!({ "name_matches": answer })));
            };
            ask(&citizen.id, &citizen.name, "yes");
            ask(&citizen.id, &other.name, yes_or_no(citizen.name == other.name));
            // nobody of the city is born so late
            if let Ok(unknown) = stranger("2015-06-01", i) {
                ask(&unknown.id, &unknown.name, "unknown");
            }
        }
        questions
    }

    fn of_civil(&self) -> Vec<Value> {
        // couples, see `marriages`: every second pair is one, and every eleventh of the pairs is divorced
        let pairs = self.citizens[SALES..].chunks_exact(2).enumerate().take(EACH * 4);
        let married = |(i, pair): (usize, &[super::Citizen])| {
            let answer = yes_or_no(i % 2 == 0 && i % 11 != 0);
            pair.iter()
                .map(|c| {
                    let subject = json!({ "subject": c.id });
                    asked("civil.marriage.married", subject, json!({ "married": answer }))
                })
                .collect::<Vec<_>>()
        };
        pairs.flat_map(married).collect()
    }

    fn of_court(&self) -> Vec<Value> {
        // see `executors`: every 151st is listed, and every third of those was taken off
        let people = self.citizens[HOMES..].iter().enumerate();
        let chosen = people.filter(|(i, _)| i % 151 < 2).take(EACH * 4);
        let listed = |(i, c): (usize, &super::Citizen)| {
            let answer = yes_or_no(i % 151 == 0 && i % 453 != 0);
            asked("court.dishonest.listed", json!({ "subject": c.id }), json!({ "listed": answer }))
        };
        chosen.map(listed).collect()
    }

    fn of_registry(&self) -> Vec<Value> {
        let mut questions = Vec::new();
        for (i, home) in self.homes.iter().enumerate().step_by(HOMES / EACH) {
            let owner = &self.citizens[home.owner];
            let deed = json!({ "deed_no": home.deed, "location": address(home), "tenure": "sole" });
            let subject = json!({ "subject": owner.id, "unit": home.unit });
            questions.push(asked("registry.deed", subject, deed));
            let other = &self.homes[(i + 1) % HOMES].unit;
            questions.push(nothing("registry.deed", json!({ "subject": owner.id, "unit": other })));
            // what was entered is a mortgage, or was lifted
            for query in ["seized", "objected"] {
                let (full, unit) = (format!("registry.restriction.{query}"), json!({ "subject": home.unit }));
                questions.push(asked(&full, unit, json!({ query: "no" })));
            }
        }
        let unknown = json!({ "subject": "110108999009GB09999F09999999" });
        questions.push(asked("registry.restriction.seized", unknown, json!({ "seized": "unknown" })));
        questions
    }

    fn of_housing(&self) -> Vec<Value> {
        let mut questions = Vec::new();
        for sale in self.sales.iter().step_by(SALES / EACH) {
            let about = |id: &str| json!({ "subject": id, "contract": sale.contract, "unit": sale.unit });
            let price = (sale.price_yuan * 100).to_string();
            let contract = json!({ "price": price, "power_account": sale.power_account });
            questions.push(asked("housing.contract", about(&sale.seller.id), contract));
            questions.push(nothing("housing.contract", about(&sale.buyer.id)));
            for (id, answer) in [(&sale.buyer.id, "yes"), (&sale.seller.id, "no")] {
                let answer = json!({ "buyer_matches": answer });
                questions.push(asked("housing.contract.buyer_matches", about(id), answer));
            }
        }
        questions
    }

    fn of_tax(&self) -> Vec<Value> {
        let mut questions = Vec::new();
        for sale in self.sales.iter().step_by(SALES / EACH) {
            for (id, answer) in [(&sale.buyer.id, "yes"), (&sale.seller.id, "unknown")] {
                let subject = json!({ "subject": id, "contract": sale.contract });
                questions.push(asked("tax.settlement.paid", subject, json!({ "paid": answer })));
            }
        }
        questions
    }

    /// Everybody has paid; about another's account there is nothing.
    fn of_utility(&self, query: &str, account: impl Fn(&Home) -> (&'static str, String)) -> Vec<Value> {
        let mut questions = Vec::new();
        for (i, home) in self.homes.iter().enumerate().step_by(HOMES / EACH) {
            let owner = &self.citizens[home.owner].id;
            for (of, answer) in [(home, "yes"), (&self.homes[(i + 1) % HOMES], "unknown")] {
                let (name, value) = account(of);
                let subject = json!({ "subject": owner, name: value });
                questions.push(asked(query, subject, json!({ "settled": answer })));
            }
        }
        questions
    }
}
