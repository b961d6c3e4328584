//! Events to nodes: the shape of the one document, each node with its tag and place, aliases as second references.
//!
//! Nodes lie in one vector and refer to each other by number, so an alias costs nothing here. What they unfold to is
//! counted in `construct`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::scalar::Tag;
use super::{DEPTH_MAX, NODES_MAX, Position, YamlError, source};

/// The number of a node in [`Tree::nodes`].
pub(super) type NodeId = usize;

/// All nodes; `root` is `None` for an empty stream.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Option<NodeId>,
}

pub(super) struct Node {
    pub(super) tag: Tag,
    pub(super) content: Content,
    pub(super) at: Position,
}

pub(super) enum Content {
    Scalar(String),
    List(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
}

/// Reads the document in `text`.
pub(super) fn compose(text: &str) -> Result<Tree, YamlError> {
    let mut builder = Builder::default();
    let options = granit_parser::options! {
        block_nesting_limit: DEPTH_MAX,
        block_scalar_eof_without_line_feed: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.take(event, &span)?;
    }
    source::refuse_tabs(text, &builder.opaque)?;
    Ok(Tree {
        nodes: builder.nodes,
        root: builder.root,
    })
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    root: Option<NodeId>,
    documents: usize,
    /// By the parser's number of the anchor.
    anchors: HashMap<usize, NodeId>,
    anchor_names: HashSet<String>,
    open: Vec<Open>,
    /// Where quoted and block scalars stand, in characters.
    opaque: Vec<Range<usize>>,
}

/// A list or map that is not closed yet; `key` waits for its value.
struct Open {
    node: NodeId,
    key: Option<NodeId>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let at = position(&span.tag_span().map_or(span.start, |tag| tag.start));
        match event {
            Event::StreamStart | Event::DocumentEnd | Event::StreamEnd => {}
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlError::new(at, "a second document; Synapse reads exactly one"));
                }
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => {
                let node = self
                    .anchors
                    .get(&anchor)
                    .copied()
                    .ok_or_else(|| YamlError::new(at, "an alias of nothing"))?;
                self.attach(node);
            }
            Event::Anchor(_, name) => {
                if !self.anchor_names.insert(name.into_owned()) {
                    return Err(YamlError::new(at, "an anchor (`&`) whose name is taken"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.remember_opaque(style, span);
                let tag = scalar_tag(tag.as_deref(), &text, style);
                self.add(
                    anchor,
                    Node {
                        tag,
                        content: Content::Scalar(text.into_owned()),
                        at,
                    },
                )?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                let tag = full_name(tag.as_deref()).map_or(Tag::List, |name| Tag::named(&name));
                self.add(
                    anchor,
                    Node {
                        tag,
                        content: Content::List(Vec::new()),
                        at,
                    },
                )?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let tag = full_name(tag.as_deref()).map_or(Tag::Map, |name| Tag::named(&name));
                self.add(
                    anchor,
                    Node {
                        tag,
                        content: Content::Map(Vec::new()),
                        at,
                    },
                )?;
            }
            // Comments and the like, which were not asked for, and what the parser may learn.
            _ => return Err(YamlError::new(at, "something that no YAML of Synapse has")),
        }
        Ok(())
    }

    /// A new node, in its place; a list or map stays open.
    fn add(&mut self, anchor: usize, node: Node) -> Result<(), YamlError> {
        let at = node.at;
        if self.nodes.len() >= NODES_MAX {
            return Err(YamlError::new(at, format!("more than {NODES_MAX} values")));
        }
        let opens = !matches!(node.content, Content::Scalar(_));
        let id = self.nodes.len();
        self.nodes.push(node);
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        self.attach(id);
        if opens {
            self.open.push(Open { node: id, key: None });
        }
        if self.open.len() > DEPTH_MAX {
            return Err(YamlError::new(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(())
    }

    fn attach(&mut self, id: NodeId) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(id);
            return;
        };
        match &mut self.nodes[open.node].content {
            Content::List(items) => items.push(id),
            Content::Map(pairs) => match open.key.take() {
                Some(key) => pairs.push((key, id)),
                None => open.key = Some(id),
            },
            Content::Scalar(_) => {}
        }
    }

    fn remember_opaque(&mut self, style: ScalarStyle, span: &Span) {
        if style != ScalarStyle::Plain {
            self.opaque.push(span.start.index()..span.end.index());
        }
    }
}

/// Handle and suffix in one; none for the non-specific tag `!`, which on lists and maps changes nothing.
fn full_name(tag: Option<&granit_parser::Tag>) -> Option<String> {
    tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()))
        .filter(|name| name != "!")
}

fn scalar_tag(tag: Option<&granit_parser::Tag>, text: &str, style: ScalarStyle) -> Tag {
    match full_name(tag) {
        Some(name) => Tag::named(&name),
        // With `!`, even a quoted scalar resolves as if it were plain.
        None if style == ScalarStyle::Plain || tag.is_some() => Tag::of_plain(text),
        None => Tag::Text,
    }
}

fn position(marker: &Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

fn scan_error(error: &ScanError) -> YamlError {
    YamlError::new(position(error.marker()), error.info())
}
