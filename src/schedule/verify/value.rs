// SPDX-License-Identifier: MPL-2.0
//! What an element of memory holds, as an expression over the ranks' contributions.
//!
//! Expressions are stored once each, in the normal form of [`Bracketing`](crate::element::Bracketing), so that two
//! are equal exactly when their numbers are. A [`Value`] is an expression together with the element of the message
//! that it belongs to, given as a shift from the address: thus one value describes a whole run of memory, however
//! long.

use std::collections::HashMap;

use crate::element::Bracketing;

/// The number of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Expression(u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Node {
    /// What a rank contributes to a call.
    Leaf { call: usize, rank: usize },
    /// At least two operands, folded from left to right; the first is a leaf.
    Fold(Box<[Expression]>),
}

/// All expressions of a verification.
#[derive(Default)]
pub(super) struct Expressions {
    nodes: Vec<Node>,
    numbers: HashMap<Node, Expression>,
}

impl Expressions {
    fn number(&mut self, node: Node) -> Expression {
        if let Some(&known) = self.numbers.get(&node) {
            return known;
        }
        let new = Expression(self.nodes.len() as u32);
        self.nodes.push(node.clone());
        self.numbers.insert(node, new);
        new
    }

    /// What `rank` contributes to `call`.
    pub(super) fn leaf(&mut self, call: usize, rank: usize) -> Expression {
        self.number(Node::Leaf { call, rank })
    }

    /// The fold of at least one operand.
    pub(super) fn fold(&mut self, operands: &[Expression]) -> Expression {
        match operands {
            [alone] => *alone,
            [first, others @ ..] => {
                let mut flat = match &self.nodes[first.0 as usize] {
                    Node::Fold(inner) => inner.to_vec(),
                    Node::Leaf { .. } => vec![*first],
                };
                flat.extend_from_slice(others);
                self.number(Node::Fold(flat.into()))
            }
            [] => unreachable!("a fold without sources is refused before it is evaluated"),
        }
    }

    /// A declared order, applied to the contributions to `call`.
    pub(super) fn bracketing(&mut self, call: usize, bracketing: &Bracketing) -> Expression {
        match bracketing {
            Bracketing::Leaf(rank) => self.leaf(call, *rank),
            Bracketing::Fold(children) => {
                let operands: Vec<Expression> = children.iter().map(|child| self.bracketing(call, child)).collect();
                self.fold(&operands)
            }
        }
    }

    /// The expression as text, in the view of `call`: `0 1 (2 3)` is the fold of ranks 0 and 1 and the fold of 2 and 3.
    fn text(&self, expression: Expression, call: usize) -> String {
        match &self.nodes[expression.0 as usize] {
            Node::Leaf { call: of, rank } if *of == call => format!("{rank}"),
            Node::Leaf { call: of, rank } => format!("{rank}@call {of}"),
            Node::Fold(operands) => {
                let texts: Vec<String> = operands
                    .iter()
                    .map(|&operand| match &self.nodes[operand.0 as usize] {
                        Node::Fold(_) => format!("({})", self.text(operand, call)),
                        Node::Leaf { .. } => self.text(operand, call),
                    })
                    .collect();
                texts.join(" ")
            }
        }
    }

    /// A value as text, in the view of `call`, beginning with `element` of the message.
    pub(super) fn value(&self, state: State, expression: Expression, element: isize, call: usize) -> String {
        let expression = self.text(expression, call);
        match state {
            State::Contribution => format!("the input of rank {expression} from element {element} on"),
            State::Partial => format!("the unfinished fold [{expression}] from element {element} on"),
            State::Finished => format!("the fold [{expression}] from element {element} on"),
        }
    }
}

/// How far an expression has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// A contribution as its user gave it, in the element type.
    Contribution,
    /// An unfinished fold, in the accumulator type.
    Partial,
    /// A fold that was divided, rounded and made canonical: nothing may be folded into it any more.
    Finished,
}

/// What a run of memory holds: at address `a`, element `a + shift` of the expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) expression: Expression,
    pub(super) state: State,
    pub(super) shift: isize,
}

impl Value {
    /// Which element of the message lies at `address`.
    pub(super) fn element(self, address: usize) -> isize {
        address as isize + self.shift
    }
}
