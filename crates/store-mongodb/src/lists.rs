//! Lists of aggregates: pages in the order of ids, and spans over neighbouring lists in the order of values.

use std::{collections::HashMap, marker::PhantomData};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc},
};
use serde::Deserialize;
use tandem_event_path::store::{Filter, PageRequest, Span, SpanRequest, StoreError, no_such_list};
use tandem_model::aggregate::Aggregate;

use super::{
    connection::{SERVER_LIMIT, limited, read_page},
    documents::read,
    group_list::{Beginning, Beginnings, GroupList},
    group_queue::Admission,
    spans,
};

/// Most pages in one command.
const PAGES: usize = 50;
/// How many such commands are in flight.
const PAGE_COMMANDS: usize = 4;

/// The lists of one kind of aggregate. Clones share the reads in flight.
#[derive(Clone, Debug)]
pub(super) struct Lists<A> {
    collection: Collection<RawDocumentBuf>,
    /// One for each index with a single field.
    groups: Vec<GroupList>,
    aggregate: PhantomData<fn() -> A>,
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct Listed<A> {
    state: A,
    page: i64,
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct ListedState<A> {
    state: A,
}

/// Whether there is an index for this list: see [`Aggregate::INDEXES`].
fn check_list<A: Aggregate>(filter: &Filter) -> Result<(), StoreError> {
    let kept = |fields: &&[&str]| fields.iter().eq(filter.0.iter().map(|(field, _)| field));
    if filter.0.is_empty() || A::INDEXES.iter().any(kept) {
        return Ok(());
    }
    Err(no_such_list::<A>(filter))
}

/// The filter for the documents of a list after those of earlier pages.
fn filter(request: &PageRequest) -> Document {
    let mut filter: Document = request
        .filter
        .0
        .iter()
        .map(|(field, value)| (format!("state.{field}"), Bson::String(value.clone())))
        .collect();
    if let Some(after) = &request.after {
        filter.insert("_id", doc! { "$gt": after });
    }
    filter
}

/// The stages that read one page. Each document gets the page's number.
fn stages(number: usize, request: &PageRequest) -> Vec<Document> {
    let limit = i64::try_from(request.limit).unwrap_or(i64::MAX);
    let page = i64::try_from(number).unwrap_or(i64::MAX);
    vec![
        doc! { "$match": filter(request) },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$limit": limit },
        doc! { "$project": { "state": 1, "page": { "$literal": page } } },
    ]
}

/// At most `limit` aggregates of a list, and whether there may be more; `None` if the beginning that was read is too
/// short.
fn begun<A: Aggregate>(
    beginning: Option<&Beginning>,
    limit: usize,
) -> Option<Result<(Vec<A>, bool), StoreError>> {
    let list = beginning?;
    if !list.is_whole && list.documents.len() < limit {
        return None;
    }
    let more = !list.is_whole || list.documents.len() > limit;
    let read = |document: &RawDocumentBuf| read(document).map(|one: ListedState<A>| one.state);
    let found: Result<Vec<A>, StoreError> = list.documents.iter().take(limit).map(read).collect();
    Some(found.map(|found| (found, more)))
}

impl<A: Aggregate> Lists<A> {
    pub(super) fn new(collection: Collection<RawDocumentBuf>) -> Self {
        let alone = A::INDEXES.iter().filter_map(|fields| match fields {
            [field] => Some(GroupList::new(collection.clone(), field)),
            _ => None,
        });
        Self {
            groups: alone.collect(),
            collection,
            aggregate: PhantomData,
        }
    }

    /// See [`AggregateStore::pages`](tandem_event_path::store::AggregateStore::pages).
    pub(super) async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        for PageRequest { filter, .. } in requests {
            check_list::<A>(filter)?;
        }
        if let [request] = requests {
            return Ok(vec![self.page(request).await?]);
        }
        let begun = self.beginnings(requests).await?;
        let mut pages: Vec<Option<Vec<A>>> = Vec::with_capacity(requests.len());
        for request in requests {
            let beginning =
                value_alone(request).and_then(|(field, value)| begun.get(field)?.get(value));
            let page = self::begun(beginning, request.limit).transpose()?;
            pages.push(page.map(|(page, _)| page));
        }
        let left: Vec<PageRequest> = requests
            .iter()
            .zip(&pages)
            .filter(|(_, page)| page.is_none())
            .map(|(request, _)| request.clone())
            .collect();
        let mut left = self.pages_apart(left).await?.into_iter();
        Ok(pages
            .into_iter()
            .map(|page| page.or_else(|| left.next()).unwrap_or_default())
            .collect())
    }

    /// See [`AggregateStore::span`](tandem_event_path::store::AggregateStore::span).
    pub(super) async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        check_list::<A>(&request.filter())?;
        if request.after.is_none() && request.first == request.last {
            let filter = request.filter();
            let apart = self.span_apart(request);
            return self.first_of(&filter, request.limit, apart).await;
        }
        self.span_apart(request).await
    }

    /// The beginning of a list with one value: together with other reads if some are in flight, otherwise by `apart`.
    async fn first_of(
        &self,
        filter: &Filter,
        limit: usize,
        apart: impl Future<Output = Result<Span<A>, StoreError>>,
    ) -> Result<Span<A>, StoreError> {
        let [(field, value)] = filter.0.as_slice() else {
            return apart.await;
        };
        let Some(group) = self.groups.iter().find(|group| group.field == *field) else {
            return apart.await;
        };
        let recorded = spans::command("find", self.collection.name());
        let lists = match group.admit(value, recorded.context()) {
            Admission::Apart => return apart.await,
            Admission::Now(_turn) => return apart.await,
            Admission::Later(later) => later.found().await?,
        };
        match begun(lists.get(value), limit) {
            Some(begun) => begun.map(|(found, more)| Span { found, more }),
            None => apart.await,
        }
    }

    async fn span_apart(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        let field = format!("state.{}", request.field);
        let (first, last) = (&request.first, &request.last);
        // A position outside of the span is valid too. Both branches of the filter stay within the span.
        let filter = match &request.after {
            None => doc! { &field: { "$gte": first, "$lte": last } },
            Some((value, id)) => doc! { "$or": [
                { &field: { "$eq": value, "$gte": first, "$lte": last }, "_id": { "$gt": id } },
                { &field: { "$gt": value, "$gte": first, "$lte": last } },
            ] },
        };
        let order = doc! { field: 1, "_id": 1 };
        let (found, more) = self.listed(filter, order, request.limit).await?;
        Ok(Span { found, more })
    }

    /// Reads one page with a `find`, which costs MongoDB less than a pipeline.
    async fn page(&self, request: &PageRequest) -> Result<Vec<A>, StoreError> {
        let (order, mut page) = (doc! { "_id": 1 }, Vec::new());
        let mut request = request.clone();
        loop {
            let wanted = request.limit - page.len();
            if wanted == 0 {
                return Ok(page);
            }
            let apart = async {
                let (found, more) = self.listed(filter(&request), order.clone(), wanted).await?;
                Ok(Span { found, more })
            };
            let Span { found, more } = match &request.after {
                None => self.first_of(&request.filter, wanted, apart).await?,
                Some(_) => apart.await?,
            };
            request.after = found.last().map(|state: &A| state.id().to_owned());
            page.extend(found);
            if !more {
                return Ok(page);
            }
        }
    }

    /// At most `limit` states that match a filter, in this order, and whether there may be more. It stops early when
    /// they have more than [`PAGE_BYTES`](tandem_event_path::store::PAGE_BYTES) together. Sends one command.
    async fn listed(
        &self,
        filter: Document,
        order: Document,
        limit: usize,
    ) -> Result<(Vec<A>, bool), StoreError> {
        if limit == 0 {
            return Ok((Vec::new(), false));
        }
        let reading = async {
            let mut cursor = self
                .collection
                .find(filter)
                .projection(doc! { "_id": 0, "state": 1 })
                .sort(order)
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            read_page(&mut cursor, limit, |document| {
                read(document).map(|listed: ListedState<A>| listed.state)
            })
            .await
        };
        limited(reading).await?
    }

    /// The beginnings of the lists whose first page is requested, by field. Sends one command for each field.
    async fn beginnings(
        &self,
        requests: &[PageRequest],
    ) -> Result<HashMap<&'static str, Beginnings>, StoreError> {
        let mut found = HashMap::new();
        for group in &self.groups {
            let mut values: Vec<String> = requests
                .iter()
                .filter_map(value_alone)
                .filter(|(field, _)| *field == group.field)
                .map(|(_, value)| value.to_owned())
                .collect();
            values.sort_unstable();
            values.dedup();
            if values.len() > 1
                && let Some(lists) = group.beginnings(&values).await?
            {
                found.insert(group.field, lists);
            }
        }
        Ok(found)
    }

    /// Reads pages with a sub-pipeline each.
    async fn pages_apart(&self, requests: Vec<PageRequest>) -> Result<Vec<Vec<A>>, StoreError> {
        let chunks: Vec<Vec<PageRequest>> = requests.chunks(PAGES).map(<[_]>::to_vec).collect();
        let commands = chunks
            .into_iter()
            .map(|chunk| async move { self.some_pages(&chunk).await });
        let pages: Vec<Vec<Vec<A>>> = stream::iter(commands)
            .buffered(PAGE_COMMANDS)
            .try_collect()
            .await?;
        Ok(pages.into_iter().flatten().collect())
    }

    async fn some_pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        let mut pages: Vec<Vec<A>> = requests.iter().map(|_| Vec::new()).collect();
        let mut pipeline: Vec<Document> = Vec::new();
        for (number, request) in requests
            .iter()
            .enumerate()
            .filter(|(_, request)| request.limit > 0)
        {
            let stages = stages(number, request);
            if pipeline.is_empty() {
                pipeline = stages;
            } else {
                pipeline.push(doc! { "$unionWith": { "coll": A::COLLECTION, "pipeline": stages } });
            }
        }
        if pipeline.is_empty() {
            return Ok(pages);
        }
        let reading = async {
            let cursor = self
                .collection
                .aggregate(pipeline)
                .max_time(SERVER_LIMIT)
                .with_type::<RawDocumentBuf>()
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        for document in limited(reading).await? {
            let listed: Listed<A> = read(&document)?;
            usize::try_from(listed.page)
                .ok()
                .and_then(|page| pages.get_mut(page))
                .ok_or_else(|| {
                    StoreError::Corrupt(format!("MongoDB answers page {}", listed.page))
                })?
                .push(listed.state);
        }
        for page in &mut pages {
            // A sharded collection does not keep the order between the parts of a union.
            page.sort_by(|left, right| left.id().cmp(right.id()));
        }
        Ok(pages)
    }
}

/// The field and value of a list by one field, if its first page is requested.
fn value_alone(request: &PageRequest) -> Option<(&'static str, &str)> {
    match request.filter.0.as_slice() {
        [(field, value)] if request.after.is_none() => Some((field, value)),
        _ => None,
    }
}
