//! Questions about all rows together, in SQL. What a role may ask is enforced on the plan, not on the text: one aggregate over one
//! table, grouped and filtered by declared columns, of declared numbers; results about too few people are taken out inside the plan.

use crate::{
    dataset::{Aggregates, Dataset, SUBJECT},
    lake::Lake,
    lookup,
    table::{Table, now_ms},
};
use anyhow::{Context as _, Result, bail};
use arrow::array::RecordBatch;
use datafusion::{
    common::{
        Column, TableReference,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    datasource::{
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    execution::{
        context::SessionContext, memory_pool::FairSpillPool, object_store::ObjectStoreUrl,
        runtime_env::RuntimeEnvBuilder,
    },
    functions_aggregate::expr_fn::{count, count_distinct, max, sum},
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder},
    prelude::{DataFrame, SessionConfig, abs, cast, col, lit},
};
use serde_json::{Map, Value, json};
use std::{io::Write as _, sync::Arc, time::Duration};

/// How long a question may take.
pub const TIME_MAX: Duration = Duration::from_secs(60);
/// The most results of one question.
pub const RESULTS_MAX: usize = 10_000;
/// Where one row makes up more than this share of a sum, the sum says what that row is.
const DOMINANCE: f64 = 0.8;

/// An engine that works within limits of memory, on two cores, and spills to disk.
pub fn engine(memory_mb: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_mb << 20)))
        .build_arc()?;
    let config = SessionConfig::new()
        .with_target_partitions(2)
        .with_information_schema(false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        .set_bool("datafusion.execution.collect_statistics", false)
        .set_bool("datafusion.sql_parser.enable_ident_normalization", false);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// The name a data set has in SQL: dots become underscores.
pub fn sql_name(id: &str) -> String {
    id.replace(['.', '-'], "_")
}

/// Makes a data set's table known to an engine. Whether it has any rows.
pub async fn register(context: &SessionContext, lake: &Lake, dataset: &Dataset) -> Result<bool> {
    let Some(table) = Table::open(&lake.config, dataset).await? else { return Ok(false) };
    let files = table.files()?;
    if files.is_empty() {
        return Ok(false);
    }
    let base = format!("lake://{}/", sql_name(dataset.id()).replace('_', "-"));
    let store = ObjectStoreUrl::parse(&base)?;
    let (files_of, before) = table.scanned();
    context.register_object_store(store.as_ref(), files_of);
    let paths = files.iter().map(|f| ListingTableUrl::parse(format!("{base}{before}{}", f.path)));
    let config = ListingTableConfig::new_with_multi_paths(paths.collect::<Result<Vec<_>, _>>()?)
        .with_listing_options(ListingOptions::new(Arc::new(ParquetFormat::default())))
        .with_schema(dataset.schema.clone());
    context.register_table(
        TableReference::bare(sql_name(dataset.id())),
        Arc::new(ListingTable::try_new(config)?),
    )?;
    Ok(true)
}

/// Runs SQL of the platform's own, within the engine's limits.
pub async fn run(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    Ok(context.sql(sql).await?.collect().await?)
}

/// What a question came to.
#[derive(Debug)]
pub struct Answer {
    /// The results' columns.
    pub columns: Vec<String>,
    /// The results.
    pub rows: Vec<Map<String, Value>>,
}

/// Asks a question in a role.
pub async fn ask(lake: &Lake, role: &str, sql: &str) -> Result<Answer> {
    let batches = results(lake, role, sql, RESULTS_MAX).await?;
    let columns = match batches.first() {
        Some(batch) => batch.schema().fields().iter().map(|f| f.name().clone()).collect(),
        None => vec![],
    };
    let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(|row| lookup::record(b, row))).collect();
    Ok(Answer { columns, rows })
}

/// The results of a question in a role, at most so many.
pub async fn results(lake: &Lake, role: &str, sql: &str, most: usize) -> Result<Vec<RecordBatch>> {
    let context = engine(lake.config.memory_mb)?;
    let mut allowed = Vec::new();
    for dataset in lake.datasets.values() {
        let rule = dataset.declared.aggregates.iter().find(|a| a.role == role);
        if let Some(rule) = rule
            && register(&context, lake, dataset).await?
        {
            allowed.push((sql_name(dataset.id()), dataset.clone(), rule.clone()));
        }
    }
    if allowed.is_empty() {
        bail!(
            "the role `{role}` may ask about no data set that has rows; `aggregates` in a declaration names roles"
        );
    }
    let plan =
        context.state().create_logical_plan(sql).await.map_err(|e| anyhow::anyhow!("the question: {e}"))?;
    let plan = guard(plan, &allowed)?;
    let frame = DataFrame::new(context.state(), plan).limit(0, Some(most + 1))?;
    let batches = tokio::time::timeout(TIME_MAX, frame.collect())
        .await
        .with_context(|| format!("the question took longer than {} s", TIME_MAX.as_secs()))??;
    let count = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    if count > most {
        bail!("there are more than {most} results; group by less, or filter");
    }
    keep_question(lake, role, sql, count)?;
    Ok(batches)
}

/// Keeps what was asked in which role: the columns a question may name hold nothing about single people.
fn keep_question(lake: &Lake, role: &str, sql: &str, results: usize) -> Result<()> {
    std::fs::create_dir_all(&lake.config.work)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let question = json!({ "at_ms": now_ms(), "role": role, "sql": sql, "results": results });
    let path = lake.config.work.join("questions.jsonl");
    options.open(path)?.write_all(format!("{question}\n").as_bytes()).context("the list of questions")
}

type Allowed = [(String, Arc<Dataset>, Aggregates)];

/// Holds a plan to what the role may ask, and takes results about too few out of it.
fn guard(plan: LogicalPlan, allowed: &Allowed) -> Result<LogicalPlan> {
    let (mut scans, mut aggregates) = (Vec::new(), 0);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => scans.push(scan.table_name.table().to_owned()),
            LogicalPlan::Aggregate(_) => aggregates += 1,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let [scan] = &scans[..] else {
        bail!(
            "a question is about one table, without joins or questions within it; this one reads {}",
            scans.len()
        );
    };
    if aggregates != 1 {
        bail!("a question has one aggregate, such as count(*) or sum(…): single rows are shown to nobody");
    }
    let (_, dataset, rule) = allowed.iter().find(|(name, ..)| name == scan).context("no such table")?;
    let mut below = false;
    let mut wrong = None;
    plan.apply(|node| {
        if let Err(e) = check(node, &mut below, dataset, rule) {
            wrong = Some(e);
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let plan = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => Ok(Transformed::yes(suppressed(&aggregate, dataset, rule)?)),
        LogicalPlan::TableScan(_) if !rule.only.is_empty() => {
            let mut seen = LogicalPlanBuilder::from(node);
            for (column, values) in &rule.only {
                let values = values.iter().map(|v| lit(v.clone())).collect();
                let column = Expr::Column(Column::new(Some(scan.clone()), column.to_string()));
                seen = seen.filter(cast(column, arrow::datatypes::DataType::Utf8).in_list(values, false))?;
            }
            Ok(Transformed::yes(seen.build()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn check(node: &LogicalPlan, below: &mut bool, dataset: &Dataset, rule: &Aggregates) -> Result<()> {
    match node {
        LogicalPlan::Aggregate(aggregate) => {
            *below = true;
            for group in &aggregate.group_expr {
                if matches!(group, Expr::GroupingSet(_)) {
                    bail!("grouping sets are not for questions in a role: ask one grouping after the other");
                }
                grouped(group, dataset, rule)?;
            }
            aggregate.aggr_expr.iter().try_for_each(|e| aggregated(e, dataset, rule))
        }
        LogicalPlan::Filter(filter) if *below => grouped(&filter.predicate, dataset, rule),
        LogicalPlan::Projection(projection) if *below => {
            let plain = |e: &Expr| matches!(e, Expr::Column(_));
            if projection.expr.iter().all(plain) {
                Ok(())
            } else {
                bail!("columns are aggregated as they are")
            }
        }
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => Ok(()),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) if !*below => Ok(()),
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_) => Ok(()),
        other => bail!(
            "a question in a role has no {}",
            other.display().to_string().split(':').next().unwrap_or("such part")
        ),
    }
}

/// Every column of an expression must be one to group and filter by.
fn grouped(expression: &Expr, dataset: &Dataset, rule: &Aggregates) -> Result<()> {
    for column in expression.column_refs() {
        if !rule.by.iter().any(|id| id.as_str() == column.name) {
            let by: Vec<&str> = rule.by.iter().map(model::FieldId::as_str).collect();
            bail!(
                "the role {} may not group or filter {} by `{}`; it may by: {}",
                rule.role,
                dataset.id(),
                column.name,
                by.join(", ")
            );
        }
    }
    Ok(())
}

fn aggregated(expression: &Expr, dataset: &Dataset, rule: &Aggregates) -> Result<()> {
    let inner = match expression {
        Expr::Alias(alias) => &alias.expr,
        other => other,
    };
    let Expr::AggregateFunction(call) = inner else { bail!("`{inner}` is no aggregate") };
    let parameters = &call.params;
    if parameters.filter.is_some() || !parameters.order_by.is_empty() {
        bail!("an aggregate has no filter or order of its own: filter the rows");
    }
    let column = match &parameters.args[..] {
        [Expr::Column(column)] => Some(column.name.as_str()),
        [Expr::Literal(..)] => None,
        [Expr::Cast(cast)] if matches!(&*cast.expr, Expr::Column(_)) => match &*cast.expr {
            Expr::Column(column) => Some(column.name.as_str()),
            _ => None,
        },
        _ => bail!("`{inner}`: a column is aggregated as it is, without a calculation"),
    };
    let may_sum = |name: &str| rule.of.iter().any(|id| id.as_str() == name);
    let may_count = |name: &str| may_sum(name) || rule.by.iter().any(|id| id.as_str() == name);
    let fits = match (call.func.name(), column, parameters.distinct) {
        ("count", None, false) => true,
        ("count", Some(SUBJECT), true) => true,
        ("count", Some(name), false) => may_count(name),
        ("sum" | "avg", Some(name), false) => may_sum(name),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let of: Vec<&str> = rule.of.iter().map(model::FieldId::as_str).collect();
    bail!(
        "the role {} may not ask {} for `{inner}`: there are count(*), count(distinct {SUBJECT}), and sum and avg of {}",
        rule.role,
        dataset.id(),
        of.join(", ")
    )
}

/// The aggregate with results taken out that tell about too few, or about one row nearly alone.
fn suppressed(
    aggregate: &Aggregate,
    dataset: &Dataset,
    rule: &Aggregates,
) -> Result<LogicalPlan, datafusion::error::DataFusionError> {
    const OF: &str = "tongban_of";
    let of_people = dataset.declared.subject.is_some();
    let how_many = if of_people { count_distinct(col(SUBJECT)) } else { count(lit(1)) };
    let mut aggregates = aggregate.aggr_expr.clone();
    aggregates.push(how_many.alias(OF));
    let mut conditions = vec![col(OF).gt_eq(lit(i64::from(rule.at_least)))];
    let mut summed: Vec<String> = Vec::new();
    for expression in &aggregate.aggr_expr {
        expression.apply(|e| {
            if let Expr::AggregateFunction(call) = e
                && matches!(call.func.name(), "sum" | "avg")
            {
                summed.extend(
                    call.params.args.iter().flat_map(|a| a.column_refs().into_iter().map(|c| c.name.clone())),
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    summed.sort();
    summed.dedup();
    for (at, name) in summed.iter().enumerate() {
        let (most, all) = (format!("tongban_most_{at}"), format!("tongban_all_{at}"));
        let size = || abs(cast(col(name.as_str()), arrow::datatypes::DataType::Float64));
        aggregates.push(max(size()).alias(&most));
        aggregates.push(sum(size()).alias(&all));
        conditions.push(col(&most).lt_eq(col(&all) * lit(DOMINANCE)).or(col(&all).is_null()));
    }
    let outputs: Vec<Expr> = aggregate.schema.columns().into_iter().map(Expr::Column).collect();
    let mut plan = LogicalPlanBuilder::from(aggregate.input.clone())
        .aggregate(aggregate.group_expr.clone(), aggregates)?;
    for condition in conditions {
        plan = plan.filter(condition)?;
    }
    plan.project(outputs)?.build()
}
