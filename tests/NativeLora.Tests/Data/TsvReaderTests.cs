using System.Text;
using CsCheck;
using NativeLora.Data;

namespace NativeLora.Tests.Data;

public class TsvReaderTests
{
    [Fact]
    public void Quotes_spaces_and_NULs_are_text_and_line_ends_are_not()
    {
        using var file = new TemporaryFile("\uFEFFa\tb\r\n \"x \0\t'\r\n\r\ny\r\tz ");
        var reader = TsvReader.WithHeader(file.Path);
        Assert.Equal(["a", "b"], reader.Columns);
        var rows = reader.Rows().ToArray();
        Assert.Equal([2, 4], rows.Select(r => r.Line));
        Assert.Equal([" \"x \0", "'"], rows[0].Fields);
        Assert.Equal(["y\r", "z "], rows[1].Fields);
    }

    [Fact]
    public void Columns_are_found_by_name_first_then_by_number()
    {
        using var file = new TemporaryFile("1\tb\nx\ty\n");
        var reader = TsvReader.WithHeader(file.Path);
        Assert.Equal(0, reader.Column("1"));
        Assert.Equal(0, reader.Column("0"));
        Assert.Equal(1, reader.Column("b"));
        Assert.Null(reader.FindColumn("2"));
        Assert.Null(reader.FindColumn("-1"));
        var error = Assert.Throws<InputException>(() => reader.Column("c"));
        Assert.Contains(file.Path, error.Message);
        Assert.Contains("1, b", error.Message);
        Assert.Equal(1, TsvReader.WithoutHeader(file.Path).Column("1"));
        Assert.Equal(2, TsvReader.WithoutHeader(file.Path).Rows().Count());
    }

    [Fact]
    public void Two_columns_of_a_name_are_not_guessed_at()
    {
        using var file = new TemporaryFile("a\ta\nx\ty\n");
        Assert.Throws<InputException>(() => TsvReader.WithHeader(file.Path).Column("a"));
    }

    [Fact]
    public void A_short_row_is_named_or_skipped_and_counted()
    {
        using var file = new TemporaryFile("a\tb\nx\ty\nz\nv\tw\textra\n");
        var error = Assert.Throws<InputException>(() => TsvReader.WithHeader(file.Path).Rows().Count());
        Assert.Contains($"{file.Path}: line 3 ", error.Message);
        var reader = TsvReader.WithHeader(file.Path, skipShortRows: true);
        Assert.Equal(2, reader.Rows().Count());
        Assert.Equal(1, reader.SkippedRows);
        Assert.Equal(2, reader.Rows().Count());
        Assert.Equal(1, reader.SkippedRows);
    }

    [Theory]
    [InlineData("")]
    [InlineData("\uFEFF")]
    [InlineData("\n\n")]
    public void An_empty_file_is_refused(string text)
    {
        using var file = new TemporaryFile(text);
        Assert.Contains("empty", Assert.Throws<InputException>(() => TsvReader.WithHeader(file.Path)).Message);
    }

    [Fact]
    public void A_file_without_usable_rows_is_refused()
    {
        using var header = new TemporaryFile("a\tb\n");
        Assert.Throws<InputException>(() => TsvReader.WithHeader(header.Path).Rows().Count());
        using var shorts = new TemporaryFile("a\tb\nx\ny\n");
        Assert.Throws<InputException>(() => TsvReader.WithHeader(shorts.Path, skipShortRows: true).Rows().Count());
    }

    [Fact]
    public void A_missing_file_and_a_folder_are_refused()
    {
        Assert.Throws<InputException>(() => TsvReader.WithHeader("/nowhere/at/all.tsv"));
        Assert.Throws<InputException>(() => TsvReader.WithHeader(Path.GetTempPath()));
    }

    [Fact]
    public void Bytes_that_are_not_UTF8_are_refused_with_their_line()
    {
        using var file = new TemporaryFile([.. "a\nxyz\n"u8, 0xC3, (byte)'\n']);
        var error = Assert.Throws<InputException>(() => TsvReader.WithHeader(file.Path).Rows().Count());
        Assert.Contains("line 3", error.Message);
    }

    [Fact]
    public void Any_bytes_are_read_or_refused_but_nothing_else() =>
        Gen.Char["\t\n\r A\u00C3\u00A4\u00EF\u00BB\u00BF"].Select(c => (byte)c).Array[0, 40].Sample(bytes =>
        {
            using var file = new TemporaryFile(bytes);
            try
            {
                var reader = TsvReader.WithHeader(file.Path, skipShortRows: true);
                foreach (var row in reader.Rows())
                    Assert.True(row.Fields.Length >= reader.Columns.Count);
            }
            catch (InputException e)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        }, iter: 500, threads: 1);

    [Fact]
    public void Lines_longer_than_the_buffer_come_whole()
    {
        var text = new StringBuilder("a\tb\n");
        for (var i = 0; i < 12; i++)
            text.Append('é', 30_000 * (i % 3)).Append('\t').Append(i).Append('\n');
        using var file = new TemporaryFile(text.ToString());
        var rows = TsvReader.WithHeader(file.Path).Rows().ToArray();
        Assert.Equal(12, rows.Length);
        Assert.All(rows, r => Assert.Equal((new string('é', 30_000 * ((r.Line - 2) % 3)), $"{r.Line - 2}"), (r.Fields[0], r.Fields[1])));
    }
}
