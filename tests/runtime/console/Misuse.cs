// Calls the library from C# wrongly, and in ways that are less usual; prints a line for each call.
using System;
using SpineScore;

public static class Misuse
{
    private static void Score(string name, Client client, View view)
    {
        string json;
        try
        {
            Report report = client.Score(new[] { view }, out json);
            Console.WriteLine("{0}: ok {1}", name, json.Length == (int)report.AnswerBytes);
        }
        catch (SpineScoreException error)
        {
            Console.WriteLine("{0}: {1}", name, error.Status);
        }
        catch (ArgumentException error)
        {
            Console.WriteLine("{0}: {1}", name, error.Message);
        }
    }

    public static void Main(string[] words)
    {
        var client = new Client(words[0], "right");
        Score("words", client, new View { Data = new ushort[60], Rows = 10, Columns = 6 });
        Score("words-as-bytes", client, new View { Data = new byte[120], Rows = 10, Columns = 6, BitsAllocated = 16 });
        Score("bytes-too-few", client, new View { Data = new byte[60], Rows = 10, Columns = 6, BitsAllocated = 16 });
        Score("header", client, new View { Data = new byte[60], Rows = 10, Columns = 6, Header = new byte[9] });
        Score("integers", client, new View { Data = new int[60], Rows = 10, Columns = 6 });
        Score("nothing", client, new View { Rows = 10, Columns = 6 });
        Console.WriteLine("cancel: {0}", client.Cancel());
        client.Dispose();
        client.Dispose();
        Score("disposed", client, new View { Data = new byte[60], Rows = 10, Columns = 6 });
        Console.WriteLine("cancel: {0}", client.Cancel());
    }
}
