using System.Reflection;
using System.Text;

namespace NativeLora.Devices.Cuda;

/// <summary>Kernels by their names. A file of PTX is given to the driver when the first of its kernels is asked for.</summary>
internal sealed unsafe class CudaModules : IDisposable
{
    private const int LogBytes = 4096, ErrorLog = 5, ErrorLogBytes = 6;

    // What the PTX says: which file a kernel is in, and the bytes of its parameter.
    private static readonly Lazy<Dictionary<string, (string File, int ParameterBytes)>> s_index = new(Index);

    private readonly CudaContext _context;
    private readonly Dictionary<string, nint> _modules = [];
    private readonly Dictionary<string, CudaFunction> _functions = [];

    public CudaModules(CudaContext context) => _context = context;

    /// <summary>Names of all kernels.</summary>
    public static IReadOnlyCollection<string> Names => s_index.Value.Keys;

    public CudaFunction Function(string name)
    {
        if (_functions.TryGetValue(name, out var known))
            return known;
        if (!s_index.Value.TryGetValue(name, out var place))
            throw new InvalidOperationException($"no PTX has a kernel {name}");
        if (!_modules.TryGetValue(place.File, out var module))
            _modules[place.File] = module = Load(place.File);
        _context.Enter();
        nint handle;
        fixed (byte* text = Encoding.UTF8.GetBytes(name + '\0'))
            _context.Driver.Check(_context.Driver.ModuleGetFunction(&handle, module, text), $"cuModuleGetFunction of {name}");
        return _functions[name] = new CudaFunction(_context, name, handle, place.ParameterBytes);
    }

    private nint Load(string file)
    {
        _context.Enter();
        var driver = _context.Driver;
        var (text, log) = (Bytes(file, 1), new byte[LogBytes]);
        nint module;
        fixed (byte* ptx = text, to = log)
        {
            var options = stackalloc int[2] { ErrorLog, ErrorLogBytes };
            var values = stackalloc void*[2] { to, (void*)LogBytes };
            var result = driver.ModuleLoad(&module, ptx, 2, options, values);
            if (result == 0)
                return module;
            var first = Encoding.UTF8.GetString(log).Split(['\0', '\n'], 2)[0].Trim();
            throw driver.Failure(result, $"the driver does not take {file}{(first.Length > 0 ? $" ({first})" : "")}");
        }
    }

    /// <summary>A file of the assembly, and so many zeros behind it.</summary>
    private static byte[] Bytes(string file, int zeros)
    {
        using var stream = typeof(CudaModules).Assembly.GetManifestResourceStream(file)!;
        var bytes = new byte[stream.Length + zeros];
        stream.ReadExactly(bytes.AsSpan(0, (int)stream.Length));
        return bytes;
    }

    private static Dictionary<string, (string File, int ParameterBytes)> Index()
    {
        var index = new Dictionary<string, (string, int)>(StringComparer.Ordinal);
        foreach (var file in typeof(CudaModules).Assembly.GetManifestResourceNames().Where(n => n.EndsWith(".ptx", StringComparison.Ordinal)))
        {
            var text = Encoding.UTF8.GetString(Bytes(file, 0));
            const string entry = ".visible .entry ";
            for (var at = text.IndexOf(entry, StringComparison.Ordinal); at >= 0; at = text.IndexOf(entry, at + 1, StringComparison.Ordinal))
            {
                var open = text.IndexOf('(', at);
                var name = text[(at + entry.Length)..open].Trim();
                // The one parameter: .param .align 8 .b8 name_param_0[bytes]
                var (from, close) = (text.IndexOf('[', open), text.IndexOf(')', open));
                var bytes = from > 0 && from < close ? int.Parse(text.AsSpan(from + 1, text.IndexOf(']', from) - from - 1)) : 0;
                if (!index.TryAdd(name, (file, bytes)))
                    throw new InvalidOperationException($"two kernels are called {name}: in {index[name].Item1} and {file}");
            }
        }
        return index;
    }

    public void Dispose()
    {
        _context.Enter();
        foreach (var module in _modules.Values)
            _context.Driver.ModuleUnload(module);
        _modules.Clear();
        _functions.Clear();
    }
}
