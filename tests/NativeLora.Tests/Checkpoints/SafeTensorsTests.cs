using System.Text;
using CsCheck;
using NativeLora.Checkpoints;
using NativeLora.Tensors;

namespace NativeLora.Tests.Checkpoints;

public class SafeTensorsTests
{
    private static readonly ElementType[] Types =
    [
        ElementType.F32, ElementType.F16, ElementType.BF16, ElementType.F64, ElementType.I64, ElementType.I32, ElementType.I16,
        ElementType.I8, ElementType.U8, ElementType.Bool,
    ];

    [Fact]
    public void What_is_written_is_read_back()
    {
        var tensor =
            from name in Gen.String[1, 12].Where(name => name.All(c => !char.IsSurrogate(c)) && name != "__metadata__")
            from type in Gen.Int[0, Types.Length - 1].Select(i => Types[i])
            from shape in Gen.Int[0, 5].Array[0, 3]
            from bytes in Gen.Byte.Array[(int)type.Bytes(shape.Aggregate(1, (a, b) => a * b))]
            from streamed in Gen.Bool
            select (name, type, shape: shape.Select(size => (long)size).ToArray(), bytes, streamed);
        var text = Gen.String.Where(value => value.All(c => !char.IsSurrogate(c)));
        using var folder = new TemporaryFolder();
        var path = folder.File("a.safetensors");
        Gen.Select(tensor.Array[0, 6], Gen.Dictionary(text, text)[0, 3]).Sample((all, metadata) =>
        {
            var tensors = all.DistinctBy(t => t.name).ToList();
            SafeTensorsWriter.Write(path, [.. tensors.Select(t => t.streamed
                ? TensorToWrite.Streamed(t.name, t.type, t.shape, to => to.Write(t.bytes))
                : TensorToWrite.From(t.name, t.type, t.shape, t.bytes))], metadata);
            using var file = SafeTensorsFile.Open(path);
            Assert.Equal(metadata.OrderBy(p => p.Key, StringComparer.Ordinal), file.Metadata.OrderBy(p => p.Key, StringComparer.Ordinal));
            Assert.Equal(tensors.Count, file.Tensors.Count);
            foreach (var (name, type, shape, bytes, _) in tensors)
            {
                Assert.Equal(type, file.Tensors[name].Type);
                Assert.Equal(shape, file.Tensors[name].Shape);
                Assert.Equal(bytes, file.Bytes(name).ToArray());
                Assert.Equal(file.Tensors[name].Count, file.ReadFloat32(name).Length);
            }
        }, iter: 200, threads: 1);
    }

    [SharedFact]
    public void Files_of_the_reference_library_are_written_again_byte_for_byte()
    {
        string[] files =
        [
            Shared.Path("fixtures", "models", "llama-gqa", "model", "model.safetensors"),
            Shared.Path("fixtures", "models", "bert-cls", "inputs.safetensors"),
            Shared.Path("fixtures", "combined", "llama-gqa", "b", "adapter_model.safetensors"),
            Shared.Path("fixtures", "gguf_blocks", "quantize.safetensors"),
        ];
        using var folder = new TemporaryFolder();
        foreach (var path in files)
        {
            var copy = folder.File("copy.safetensors");
            using (var file = SafeTensorsFile.Open(path))
            {
                SafeTensorsWriter.Write(copy, [.. file.Tensors.Values.Reverse().Select(tensor =>
                    TensorToWrite.From(tensor.Name, tensor.Type, tensor.Shape, file.Bytes(tensor.Name).ToArray()))], file.Metadata);
            }
            Assert.True(File.ReadAllBytes(path).AsSpan().SequenceEqual(File.ReadAllBytes(copy)), path);
        }
    }

    [Fact]
    public void Every_type_is_widened()
    {
        using var folder = new TemporaryFolder();
        var path = folder.File("a.safetensors");
        TensorToWrite Of(ElementType type, params byte[] bytes) => TensorToWrite.From($"{type}", type, [2], bytes);
        SafeTensorsWriter.Write(path,
        [
            TensorToWrite.From("F32", [2], new[] { 1.5f, -2 }),
            Of(ElementType.F16, 0x00, 0x3E, 0x00, 0xC0),
            Of(ElementType.BF16, 0xC0, 0x3F, 0x00, 0xC0),
            Of(ElementType.F64, [.. BitConverter.GetBytes(1.5), .. BitConverter.GetBytes(-2.0)]),
            Of(ElementType.I64, [.. BitConverter.GetBytes(3L), .. BitConverter.GetBytes(-2L)]),
            Of(ElementType.I32, [.. BitConverter.GetBytes(3), .. BitConverter.GetBytes(-2)]),
            Of(ElementType.I16, 3, 0, 0xFE, 0xFF),
            Of(ElementType.I8, 3, 0xFE),
            Of(ElementType.U8, 3, 0xFE),
            Of(ElementType.Bool, 1, 0),
        ]);
        using var file = SafeTensorsFile.Open(path);
        Assert.Equal("pt", file.Metadata["format"]);
        foreach (var name in new[] { "F32", "F16", "BF16", "F64" })
        {
            Assert.Equal([1.5f, -2], file.ReadFloat32(name));
            Assert.Throws<InputException>(() => file.ReadInt64(name));
        }
        foreach (var name in new[] { "I64", "I32", "I16", "I8" })
        {
            Assert.Equal([3f, -2], file.ReadFloat32(name));
            Assert.Equal([3L, -2], file.ReadInt64(name));
        }
        Assert.Equal([3L, 254], file.ReadInt64("U8"));
        Assert.Equal([1f, 0], file.ReadFloat32("Bool"));
        Assert.Contains("'none'", Assert.Throws<InputException>(() => file.ReadFloat32("none")).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"a\nb":{"dtype":"F99","shape":[],"data_offsets":[0,4]}}""", "F99")]
    [InlineData("""{"\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}""", "Unicode")]
    [InlineData("""{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}""", "twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}}""", "unknown key")]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4,8]}}""", "data_offsets")]
    [InlineData("""{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}""", "integers")]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[9223372036854775803,9223372036854775807]}}""", "past the end")]
    [InlineData("""{"__metadata__":{"k":"1","k":"2"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}""", "twice")]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}} x""", "JSON")]
    [InlineData("""{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}""", "JSON")]
    [InlineData("""{"a":7}""", "not an object")]
    public void Bad_headers_are_refused_in_one_line(string header, string reason)
    {
        using var folder = new TemporaryFolder();
        var json = Encoding.UTF8.GetBytes(header);
        var path = folder.Write("a.safetensors", [.. BitConverter.GetBytes((ulong)json.Length), .. json, 0, 0, 0, 0]);
        var error = Assert.Throws<InputException>(() => SafeTensorsFile.Open(path));
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Missing_files_and_folders_are_input_errors()
    {
        using var folder = new TemporaryFolder();
        Assert.Throws<InputException>(() => SafeTensorsFile.Open(folder.File("none.safetensors")));
        Assert.Throws<InputException>(() => SafeTensorsFile.Open(folder.Path));
    }

    [Fact]
    public void A_failed_write_leaves_the_old_file_and_nothing_else()
    {
        using var folder = new TemporaryFolder();
        var path = folder.Write("a.safetensors", "old");
        var broken = TensorToWrite.Streamed("a", ElementType.F32, [2], to =>
        {
            to.Write(new byte[4]);
            throw new IOException("No space left on device\nsecond line");
        });
        var error = Assert.Throws<RunException>(() => SafeTensorsWriter.Write(path, [broken]));
        Assert.StartsWith(path, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
        var shorter = TensorToWrite.Streamed("a", ElementType.F32, [2], to => to.Write(new byte[4]));
        Assert.Throws<InvalidOperationException>(() => SafeTensorsWriter.Write(path, [shorter]));
        Assert.Throws<InputException>(() => AtomicFile.Write(path, _ => throw new InputException("bad")));
        Assert.Equal("old", File.ReadAllText(path));
        Assert.Equal([path], Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void The_old_file_stays_readable_until_the_new_one_is_whole()
    {
        using var folder = new TemporaryFolder();
        var path = folder.Write("a.txt", "old");
        AtomicFile.Write(path, to =>
        {
            to.Write("new"u8);
            to.Flush();
            Assert.Equal("old", File.ReadAllText(path));
        });
        Assert.Equal("new", File.ReadAllText(path));
        AtomicFile.WriteAllText(folder.File(Path.Combine("made", "b.txt")), "ü");
        Assert.Equal([0xC3, 0xBC], File.ReadAllBytes(folder.File(Path.Combine("made", "b.txt"))));
        Assert.Throws<RunException>(() => AtomicFile.WriteAllText(folder.Path, "a folder is there"));
        Assert.Empty(Directory.GetFiles(Path.GetDirectoryName(folder.Path)!, ".*.tmp"));
    }

    [Fact]
    public void A_full_disk_is_a_failure_of_the_run()
    {
        if (!File.Exists("/dev/full"))
            return;
        var error = Assert.Throws<RunException>(() => AtomicFile.Write(Path.Combine(Path.GetTempPath(), "nativelora-full.bin"), to =>
        {
            using var full = new FileStream("/dev/full", FileMode.Open, FileAccess.Write);
            full.Write(new byte[1 << 20]);
        }));
        Assert.Contains("nativelora-full.bin", error.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(Path.GetTempPath(), "nativelora-full.bin")));
    }

    [Fact]
    public void Two_tensors_of_one_name_are_not_written()
    {
        using var folder = new TemporaryFolder();
        var one = TensorToWrite.From("a", [1], new float[1]);
        Assert.Throws<ArgumentException>(() => SafeTensorsWriter.Write(folder.File("a"), [one, one]));
        Assert.Throws<ArgumentException>(() => TensorToWrite.From("a", [2], new float[1]));
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }
}
