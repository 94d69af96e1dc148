//! The data-resource catalogue (数据资源目录): what each department can answer for, field by field.

use crate::{DepartmentId, FieldId, ResourceId, Text};
use borsh::{BorshDeserialize, BorshSerialize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one call of a resource is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A natural person, by resident identity number (GB 11643).
    Person,
    /// An organisation, by unified social credit code (GB 32100).
    Organisation,
    /// A real-estate unit, by its 28-character code (GB/T 37346).
    Unit,
}

/// The share attribute (共享属性) of State Council Order 809 and 国发〔2016〕51号.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ShareClass {
    /// Shared with every department.
    Unconditional,
    /// Shared under a consent or an approved statutory basis.
    Conditional,
    /// Not shared; the law or decision that says so.
    NotShared {
        /// The legal citation.
        citation: String,
    },
}

/// A field a resource can answer with.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The field's name within the resource.
    pub id: FieldId,
    /// The data element (数据元) of the shared standard it carries.
    pub element: FieldId,
    /// What people call it.
    pub title: Text,
    /// Sensitivity from 1 (public) to 4 (sensitive personal information, PIPL 28).
    pub sensitivity: u8,
}

/// A question a resource answers with yes, no or unknown, in place of data (核验).
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// The predicate's name within the resource.
    pub id: FieldId,
    /// The question as people read it.
    pub title: Text,
}

/// A catalogue entry: type, standard, scope, basis and responsibility, published by its holder.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The entry's ID, unique in the consortium.
    pub id: ResourceId,
    /// Grows by one with every publication.
    pub version: u32,
    /// What people call it.
    pub title: Text,
    /// The department that holds the data and answers for it.
    pub holder: DepartmentId,
    /// The post that is responsible for it within the department.
    pub officer: String,
    /// What one call is about.
    pub subject: SubjectKind,
    /// Share attribute.
    pub share: ShareClass,
    /// The legal basis on which the holder collected it.
    pub basis: String,
    /// The data standard its elements follow.
    pub standard: String,
    /// How often it is brought up to date.
    pub update: String,
    /// Fields it can answer with.
    pub fields: Vec<Field>,
    /// Questions it can answer.
    pub predicates: Vec<Predicate>,
}

/// The protocol version from which entries are described.
pub const DESCRIPTION_PROTOCOL: u32 = 6;

/// What a catalogue says of an entry beside what it can be asked: the core metadata of GB/T 21063.3-2007 and of the guide to the
/// catalogue of government information resources (发改高技〔2017〕1272号) that [`Resource`] does not have.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What it is, in a sentence or two (信息资源摘要).
    pub about: Text,
    /// What one would search for (关键字说明).
    #[serde(default)]
    pub keywords: Vec<Text>,
    /// Where it stands in a classification (信息资源分类).
    pub category: Category,
    /// Its code in the government's catalogue (信息资源代码): `307021022100/000009`.
    pub code: String,
    /// The work it comes from (业务过程).
    pub process: Text,
    /// Whom and which time it covers.
    pub scope: Text,
    /// How it is kept: `数据库`, `电子表格`, `服务接口` (信息资源格式).
    pub format: String,
    /// Where it is also open to everybody, on which condition; empty: without any.
    #[serde(default)]
    pub open: Option<String>,
    /// Codes of resources it belongs together with (关联资源代码).
    #[serde(default)]
    pub related: Vec<String>,
}

/// A place in a classification.
#[derive(
    Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Which classification: `主题分类` (分类方式, GB/T 21063.4).
    pub scheme: String,
    /// The category's name (类目名称).
    pub name: Text,
    /// Its code (类目编码).
    pub code: String,
}

/// See [`Body::DescribeResource`](crate::Body::DescribeResource).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct DescribeResource {
    /// The entry, the signer's own.
    pub resource: ResourceId,
    /// Grows by one with every description of it.
    pub version: u32,
    /// The description.
    pub description: Description,
}
