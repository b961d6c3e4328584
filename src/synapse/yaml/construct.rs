//! Nodes to values: aliases are followed, merges flattened, tags obeyed, as `SafeConstructor` does.
//!
//! Values do not share memory, so what aliases unfold to is counted and bounded, and a node that contains itself (which
//! Python could hold) is an error.

use super::scalar::{self, Tag};
use super::tree::{Content, NodeId, Tree};
use super::value::{Kind, Mapping, Value};
use super::{DEPTH_MAX, NODES_MAX, Position, YamlError};

/// A text counts as one node, and one more for each of these.
const BYTES_PER_NODE: usize = 64;

/// The document as one value.
pub(super) fn construct(tree: &Tree) -> Result<Value, YamlError> {
    let Some(root) = tree.root else {
        return Ok(Value {
            kind: Kind::Null,
            at: Position { line: 1, column: 1 },
        });
    };
    Constructor { tree, budget: NODES_MAX }.value(root, 0)
}

struct Constructor<'a> {
    tree: &'a Tree,
    budget: usize,
}

impl Constructor<'_> {
    fn value(&mut self, id: NodeId, depth: usize) -> Result<Value, YamlError> {
        let tree = self.tree;
        let node = &tree.nodes[id];
        self.spend(node.at, depth, 1)?;
        let kind = match (&node.content, node.tag) {
            (Content::Scalar(text), tag) => {
                self.spend(node.at, depth, text.len() / BYTES_PER_NODE)?;
                scalar::construct(tag, text).map_err(|message| YamlError::new(node.at, message))?
            }
            (Content::List(items), Tag::List) => {
                Kind::List(items.iter().map(|&item| self.value(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            (Content::List(items), Tag::Pairs) => {
                Kind::List(items.iter().map(|&item| self.pair(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            (Content::Map(_), Tag::Map | Tag::Set) => Kind::Map(self.mapping(id, depth)?),
            (_, Tag::Unknown) => {
                return Err(YamlError::new(
                    node.at,
                    "a tag (a word beginning with `!`) that Synapse does not know",
                ));
            }
            (Content::List(_), _) => return Err(YamlError::new(node.at, "a list where its tag promises something else")),
            (Content::Map(_), _) => return Err(YamlError::new(node.at, "a map where its tag promises something else")),
        };
        Ok(Value { kind, at: node.at })
    }

    fn mapping(&mut self, id: NodeId, depth: usize) -> Result<Mapping, YamlError> {
        let mut mapping = Mapping::default();
        for (key, value) in self.flatten(id, depth)? {
            let key = self.key(key, depth + 1)?;
            let value = self.value(value, depth + 1)?;
            mapping.insert(key, value)?;
        }
        Ok(mapping)
    }

    /// A plain `=` is a text when it is a key.
    fn key(&mut self, id: NodeId, depth: usize) -> Result<Value, YamlError> {
        let node = &self.tree.nodes[id];
        match (&node.content, node.tag) {
            (Content::Scalar(text), Tag::Equals) => Ok(Value {
                kind: Kind::Text(text.clone()),
                at: node.at,
            }),
            _ => self.value(id, depth),
        }
    }

    /// What is merged in comes first, so that own keys win; of a list of maps the earlier wins; of several `<<` the later.
    fn flatten(&mut self, id: NodeId, depth: usize) -> Result<Vec<(NodeId, NodeId)>, YamlError> {
        let tree = self.tree;
        let node = &tree.nodes[id];
        self.spend(node.at, depth, 1)?;
        let Content::Map(pairs) = &node.content else {
            return Err(YamlError::new(node.at, "only a map, or a list of maps, can be merged"));
        };
        let mut merged = Vec::new();
        let mut own = Vec::new();
        for &(key, value) in pairs {
            if tree.nodes[key].tag != Tag::Merge {
                own.push((key, value));
            } else if let Content::List(maps) = &tree.nodes[value].content {
                for &map in maps.iter().rev() {
                    merged.extend(self.flatten(map, depth + 1)?);
                }
            } else {
                merged.extend(self.flatten(value, depth + 1)?);
            }
        }
        self.spend(node.at, depth, merged.len())?;
        merged.append(&mut own);
        Ok(merged)
    }

    /// An entry of `!!omap` or `!!pairs`: a map of one key.
    fn pair(&mut self, id: NodeId, depth: usize) -> Result<Value, YamlError> {
        let node = &self.tree.nodes[id];
        let Content::Map(pairs) = &node.content else {
            return Err(YamlError::new(node.at, "not a map of one entry"));
        };
        let &[(key, value)] = pairs.as_slice() else {
            return Err(YamlError::new(node.at, "not a map of one entry"));
        };
        let pair = vec![self.value(key, depth + 1)?, self.value(value, depth + 1)?];
        Ok(Value {
            kind: Kind::List(pair),
            at: node.at,
        })
    }

    fn spend(&mut self, at: Position, depth: usize, nodes: usize) -> Result<(), YamlError> {
        if depth > DEPTH_MAX {
            return Err(YamlError::new(
                at,
                format!("nested deeper than {DEPTH_MAX} levels once aliases are followed"),
            ));
        }
        self.budget = self
            .budget
            .checked_sub(nodes)
            .ok_or_else(|| YamlError::new(at, format!("more than {NODES_MAX} values once aliases are followed")))?;
        Ok(())
    }
}
