//! `--query`: JMESPath over the result.

use std::sync::Arc;

use jmespath::ast::Ast;
use serde_json::{Map, Value};

use crate::error::{Failure, Result};

/// A query that parses.
#[derive(Clone)]
pub struct Query {
    text: String,
    /// The keys of each `{a: x, b: y}` in it, in the order written: what comes out of a
    /// query is printed in the order it was asked for.
    orders: Arc<Vec<Vec<String>>>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Query {
    type Err = String;

    fn from_str(text: &str) -> Result<Query, String> {
        let expression = jmespath::compile(text).map_err(|e| format!("not a JMESPath query: {}", e.reason))?;
        let mut orders = Vec::new();
        collect_orders(expression.as_ast(), &mut orders);
        Ok(Query { text: text.to_owned(), orders: Arc::new(orders) })
    }
}

impl Query {
    /// Run it.
    pub fn run(&self, value: &Value) -> Result<Value> {
        let fail = |e: jmespath::JmespathError| Failure::new(format!("the query failed: {}", e.reason));
        let expression = jmespath::compile(&self.text).map_err(fail)?;
        let result = expression.search(value).map_err(fail)?;
        let result = serde_json::to_value(&*result).map_err(|e| Failure::new(format!("the query failed: {e}")))?;
        Ok(self.in_order(result))
    }

    fn in_order(&self, value: Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.into_iter().map(|v| self.in_order(v)).collect()),
            Value::Object(mut object) => {
                let order =
                    self.orders.iter().find(|o| o.len() == object.len() && o.iter().all(|k| object.contains_key(k)));
                let keys: Vec<String> = match order {
                    Some(order) => order.clone(),
                    None => object.keys().cloned().collect(),
                };
                let mut out = Map::new();
                for key in keys {
                    if let Some(value) = object.remove(&key) {
                        out.insert(key, self.in_order(value));
                    }
                }
                Value::Object(out)
            }
            scalar => scalar,
        }
    }
}

fn collect_orders(ast: &Ast, orders: &mut Vec<Vec<String>>) {
    match ast {
        Ast::MultiHash { elements, .. } => {
            orders.push(elements.iter().map(|e| e.key.clone()).collect());
            for element in elements {
                collect_orders(&element.value, orders);
            }
        }
        Ast::MultiList { elements, .. } => elements.iter().for_each(|e| collect_orders(e, orders)),
        Ast::Function { args, .. } => args.iter().for_each(|a| collect_orders(a, orders)),
        Ast::Comparison { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => {
            collect_orders(lhs, orders);
            collect_orders(rhs, orders);
        }
        Ast::Condition { predicate, then, .. } => {
            collect_orders(predicate, orders);
            collect_orders(then, orders);
        }
        Ast::Expref { ast, .. } => collect_orders(ast, orders),
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => {
            collect_orders(node, orders);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(query: &str, value: Value) -> Value {
        query.parse::<Query>().unwrap().run(&value).unwrap()
    }

    #[test]
    fn the_guides_queries() {
        let manifests =
            json!([{"digest": "a", "tags": ["v1"]}, {"digest": "b", "tags": []}, {"digest": "c", "tags": null}]);
        assert_eq!(run("[?tags[0]==null].digest", manifests), json!(["b", "c"]));
        assert_eq!(run("passwords[0].value", json!({"passwords": [{"value": "x"}]})), json!("x"));
        assert_eq!(run("[].appId", json!([{"appId": "1"}])), json!(["1"]));
        assert_eq!(run("nope", json!({})), Value::Null);
    }

    #[test]
    fn order_is_as_asked() {
        let out = run("[].{z: name, a: id}", json!([{"id": 1, "name": "n"}]));
        assert_eq!(out.to_string(), r#"[{"z":"n","a":1}]"#);
    }

    #[test]
    fn bad_queries_do_not_parse() {
        assert!("[?id contains(@, 'x')]".parse::<Query>().is_err());
        assert!("".parse::<Query>().is_err());
    }
}
