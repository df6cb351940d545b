package main

import (
	"go/ast"
	"go/token"
	"go/types"
)

// node is a function, a package variable with what it is set to, or a literal.
type node struct {
	name   string
	refs   []ref
	works  []work // function arguments of all calls
	params []int  // of the function around it that are functions, and used
}

// ref is a use of something in a node: a go statement, or a function or
// package variable by its full name.
type ref struct {
	name string
	pos  token.Pos
}

// work is a function that is an argument: of AsUser, it runs as the user.
type work struct {
	pos   token.Pos
	entry string // the function that is called with it
	arg   int
	body  *node  // of a literal
	name  string // of a declared function
	param int    // of the function around it, which so becomes an entry itself; -1
}

// graph is all that refers to each other in the module.
type graph struct {
	nodes   map[string]*node
	methods map[string][]string // by name and signature, for calls of interfaces
}

const goStatement = "go statement"

func newGraph(sources []*source) *graph {
	g := &graph{map[string]*node{}, map[string][]string{}}
	for _, s := range sources {
		for _, f := range s.files {
			for _, decl := range f.Decls {
				g.declare(s, decl)
			}
		}
	}
	return g
}

func (g *graph) declare(s *source, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		f := s.info.Defs[d.Name].(*types.Func)
		if f.Signature().Recv() != nil {
			key := methodKey(f)
			g.methods[key] = append(g.methods[key], f.FullName())
		}
		if d.Body != nil {
			name := f.FullName()
			if d.Name.Name == "init" || d.Name.Name == "_" {
				name += s.path // there may be many
			}
			g.nodes[name] = s.walk(name, d.Body, f.Signature().Params())
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for _, id := range v.Names {
				name := fullName(s.info.Defs[id])
				n := &node{name: name}
				for _, value := range v.Values {
					n.refs = append(n.refs, s.walk(name, value, nil).refs...)
				}
				g.nodes[name] = n
			}
		}
	}
}

// methodKey is what an interface's method and those that implement it share.
func methodKey(f *types.Func) string {
	signature := types.NewSignatureType(nil, nil, nil, f.Signature().Params(), f.Signature().Results(), f.Signature().Variadic())
	return f.Name() + types.TypeString(signature, nil)
}

// fullName names functions, methods and package variables alike in the source
// and in export data; "" is for what is local.
func fullName(o types.Object) string {
	switch o := o.(type) {
	case *types.Func:
		return o.Origin().FullName()
	case *types.Var:
		if o.Pkg() != nil && o.Parent() == o.Pkg().Scope() {
			return o.Pkg().Path() + "." + o.Name()
		}
	}
	return ""
}

// walk makes the node of a piece of source.
func (s *source) walk(name string, body ast.Node, params *types.Tuple) *node {
	n := &node{name: name}
	ast.Inspect(body, func(x ast.Node) bool {
		switch x := x.(type) {
		case *ast.GoStmt:
			n.refs = append(n.refs, ref{goStatement, x.Pos()})
		case *ast.Ident:
			used := s.info.Uses[x]
			if full := fullName(used); full != "" {
				n.refs = append(n.refs, ref{full, x.Pos()})
			}
			if f, ok := used.(*types.Func); ok && isAbstract(f) {
				n.refs = append(n.refs, ref{interfaceMark + methodKey(f), x.Pos()})
			}
			if i := paramIndex(params, used); i >= 0 {
				n.params = append(n.params, i)
			}
		case *ast.CallExpr:
			if callee := s.function(x.Fun); callee != "" {
				n.works = append(n.works, s.arguments(n, callee, x.Args, params)...)
			}
		}
		return true
	})
	return n
}

// interfaceMark begins the name of a method that any type may implement.
const interfaceMark = "interface "

func isAbstract(f *types.Func) bool {
	recv := f.Signature().Recv()
	return recv != nil && types.IsInterface(recv.Type())
}

// function is the full name of what an expression calls, if it is declared.
func (s *source) function(x ast.Expr) string {
	switch x := ast.Unparen(x).(type) {
	case *ast.Ident:
		return fullName(s.info.Uses[x])
	case *ast.SelectorExpr:
		return fullName(s.info.Uses[x.Sel])
	}
	return ""
}

// paramIndex finds a parameter that is a function; -1 if o is none.
func paramIndex(params *types.Tuple, o types.Object) int {
	for i := range params.Len() {
		if params.At(i) == o && isFunction(o.Type()) {
			return i
		}
	}
	return -1
}

func isFunction(t types.Type) bool {
	_, ok := t.Underlying().(*types.Signature)
	return ok
}

// arguments are those of a call that are functions.
func (s *source) arguments(n *node, callee string, args []ast.Expr, params *types.Tuple) (works []work) {
	for i, arg := range args {
		if t := s.info.TypeOf(arg); t == nil || !isFunction(t) {
			continue
		}
		w := work{pos: arg.Pos(), entry: callee, arg: i, name: s.function(arg), param: -1}
		switch x := ast.Unparen(arg).(type) {
		case *ast.FuncLit:
			w.body = s.walk("work of "+n.name, x.Body, params)
		case *ast.Ident:
			w.param = paramIndex(params, s.info.Uses[x])
		}
		works = append(works, w)
	}
	return works
}
