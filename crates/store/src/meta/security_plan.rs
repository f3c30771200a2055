//! What was set with `az security pricing`, by plan.

use portolan_types::Timestamp;

use super::{Row, RowExt, Tx, all};
use crate::Result;

/// One plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRow {
    /// Its name, in the case that Azure writes it.
    pub name: String,
    /// `Free` or `Standard`.
    pub tier: String,
    /// The sub-plan, if one was asked for.
    pub sub_plan: Option<String>,
    /// JSON list of what was asked for with it.
    pub extensions: String,
    /// When the tier last became Standard.
    pub enabled: Option<Timestamp>,
    /// When it last changed.
    pub updated: Timestamp,
}

fn read(row: &dyn Row) -> Result<PlanRow> {
    Ok(PlanRow {
        name: row.text(0)?,
        tier: row.text(1)?,
        sub_plan: row.opt_text(2)?,
        extensions: row.text(3)?,
        enabled: row.opt_time(4)?,
        updated: row.time(5)?,
    })
}

/// Every plan that was ever set. There is a fixed list of plans.
pub fn list(tx: &mut dyn Tx) -> Result<Vec<PlanRow>> {
    all(tx, "SELECT name, tier, sub_plan, extensions, enabled, updated FROM security_plan ORDER BY key", &[], read)
}

/// Set a plan.
pub fn put(tx: &mut dyn Tx, plan: &PlanRow) -> Result<()> {
    tx.execute(
        "INSERT INTO security_plan (key, name, tier, sub_plan, extensions, enabled, updated) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (key) DO UPDATE SET tier = excluded.tier, \
         sub_plan = excluded.sub_plan, extensions = excluded.extensions, enabled = excluded.enabled, \
         updated = excluded.updated",
        &[
            plan.name.to_lowercase().into(),
            (&plan.name).into(),
            (&plan.tier).into(),
            plan.sub_plan.as_deref().into(),
            (&plan.extensions).into(),
            plan.enabled.into(),
            plan.updated.into(),
        ],
    )?;
    Ok(())
}
